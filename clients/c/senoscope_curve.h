/* CURVE keys as `senoscope keys curve` writes them: NAME.key (public) and NAME.key_secret (both keys). */
#ifndef SENOSCOPE_CURVE_H
#define SENOSCOPE_CURVE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <zmq.h>
#ifndef _WIN32
#include <sys/stat.h>
#endif

enum { CURVE_KEY_SIZE = 41 }; /* 40 characters of Z85 and the terminating NUL */

static inline bool curve_is_key(const char *text) {
    uint8_t bytes[32];
    return strlen(text) == CURVE_KEY_SIZE - 1 && zmq_z85_decode(bytes, text) != NULL;
}

/* Read the next line `name = "key"` of a file: 1 if there is one, 0 at the end, -1 if its key is invalid. */
static inline int curve_next(FILE *file, const char *name, char key[CURVE_KEY_SIZE]) {
    char line[256];
    while (fgets(line, sizeof line, file)) {
        const char *at = line + strspn(line, " \t");
        const char *const value = strchr(at, '=');
        if (strncmp(at, name, strlen(name)) != 0 || !value) continue;
        at = value + 1 + strspn(value + 1, " \t'\"");
        const size_t length = strcspn(at, " \t'\"\r\n");
        if (length != CURVE_KEY_SIZE - 1) return -1;
        memcpy(key, at, length);
        key[length] = '\0';
        return curve_is_key(key) ? 1 : -1;
    }
    return 0;
}

/* Load a public key, given as text or as the path of its file; false, and the error, if it is neither. */
static inline bool curve_load_public(const char *given, char key[CURVE_KEY_SIZE], char *error, size_t size) {
    FILE *const file = fopen(given, "r");
    if (!file && curve_is_key(given)) {
        memcpy(key, given, CURVE_KEY_SIZE);
        return true;
    }
    const bool found = file && curve_next(file, "public-key", key) == 1;
    if (!file)
        snprintf(error, size, "%s is neither a file that can be read nor a key of 40 characters", given);
    else if (!found)
        snprintf(error, size, "%s holds no CURVE key of 40 characters", given);
    if (file) fclose(file);
    return found;
}

/* Load a key pair, given as path of its secret file or as secret key; false, and the error, if neither. */
static inline bool curve_load_pair(const char *given, char public_key[CURVE_KEY_SIZE],
                                   char secret_key[CURVE_KEY_SIZE], char *error, size_t size) {
    FILE *const file = fopen(given, "r");
    if (!file) {
        if (curve_is_key(given) && zmq_curve_public(public_key, given) == 0) {
            memcpy(secret_key, given, CURVE_KEY_SIZE);
            return true;
        }
        /* The text may be a secret: the message does not repeat it. */
        snprintf(error, size,
                 "the key pair is neither a file that can be read nor a secret key of 40 characters");
        return false;
    }
    bool good = true;
#ifndef _WIN32
    struct stat status;
    if (stat(given, &status) != 0 || status.st_mode & (S_IRWXG | S_IRWXO)) {
        snprintf(error, size, "%s holds secrets, but other users can open it: chmod 600 %s", given, given);
        good = false;
    }
#endif
    if (good) {
        good = curve_next(file, "public-key", public_key) == 1 && fseek(file, 0, SEEK_SET) == 0 &&
               curve_next(file, "secret-key", secret_key) == 1;
        if (!good)
            snprintf(error, size, "%s holds no key pair; the name of a secret file ends in .key_secret",
                     given);
    }
    fclose(file);
    return good;
}

/* Whether a public key is the given one, or in a `public-key` line of the given file. */
static inline bool curve_is_allowed(const char *given, const char *public_key) {
    char key[CURVE_KEY_SIZE];
    FILE *const file = fopen(given, "r");
    if (!file) return curve_is_key(given) && strcmp(given, public_key) == 0;
    int found;
    while ((found = curve_next(file, "public-key", key)) == 1 && strcmp(key, public_key) != 0) {
    }
    fclose(file);
    return found == 1;
}

#endif
