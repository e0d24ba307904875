/* Reading of JSON in place: validation of a text, and access to members, strings and numbers.
 *
 * No memory is allocated, and any bytes are safe to pass.
 */
#ifndef SENOSCOPE_JSON_H
#define SENOSCOPE_JSON_H

#include <locale.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { JSON_DEPTH = 64, JSON_NUMBER_BYTES = 64 };

typedef struct {
    const char *at;
    const char *end;
} json_span;

/* Return a text, or NULL if it is empty, because LabVIEW cannot pass NULL for a text. */
static inline const char *text_or_null(const char *text) { return text && *text ? text : NULL; }

/* Return the code point at `*at`, and move `*at` behind it; -1 if the bytes are not UTF-8. */
static inline int32_t utf8_next(const char **at, const char *end) {
    static const int32_t smallest[] = {0, 0x80, 0x800, 0x10000};
    const unsigned char lead = (unsigned char)*(*at)++;
    if (lead < 0x80) return lead;
    const int more = lead >= 0xC2 && lead < 0xE0   ? 1
                     : (lead & 0xF0) == 0xE0       ? 2
                     : lead >= 0xF0 && lead < 0xF5 ? 3
                                                   : 0;
    if (more == 0 || end - *at < more) return -1;
    int32_t point = lead & (0x3F >> more);
    for (int k = 0; k < more; k++) {
        const unsigned char byte = (unsigned char)*(*at)++;
        if ((byte & 0xC0) != 0x80) return -1;
        point = point << 6 | (byte & 0x3F);
    }
    return point < smallest[more] || point > 0x10FFFF || (point >= 0xD800 && point < 0xE000) ? -1 : point;
}

/* Return the number of characters of a UTF-8 text; -1 if it is not UTF-8. */
static inline int64_t utf8_length(const char *at, const char *end) {
    int64_t length = 0;
    for (; at < end; length++)
        if (utf8_next(&at, end) < 0) return -1;
    return length;
}

static inline const char *json_blank(const char *at, const char *end) {
    while (at < end && (*at == ' ' || *at == '\t' || *at == '\n' || *at == '\r'))
        at++;
    return at;
}

/* Return the code unit in the four digits behind \u; -1 if they are not digits. */
static inline int32_t json_unit(const char *at, const char *end) {
    char digits[5] = {0};
    if (end - at < 4) return -1;
    memcpy(digits, at, 4);
    return strspn(digits, "0123456789abcdefABCDEF") == 4 ? (int32_t)strtol(digits, NULL, 16) : -1;
}

/* Return the code point of an escape, and move `*at` from behind its \u to its end; -1 if it is invalid. */
static inline int32_t json_point(const char **at, const char *end) {
    const int32_t high = json_unit(*at, end);
    if (high < 0 || (high >= 0xDC00 && high < 0xE000)) return -1;
    *at += 4;
    if (high < 0xD800 || high >= 0xE000) return high;
    if (end - *at < 6 || (*at)[0] != '\\' || (*at)[1] != 'u') return -1;
    const int32_t low = json_unit(*at + 2, end);
    if (low < 0xDC00 || low >= 0xE000) return -1;
    *at += 6;
    return 0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00);
}

static inline const char *json_string(const char *at, const char *end) {
    if (at == end || *at++ != '"') return NULL;
    while (at < end) {
        const unsigned char c = (unsigned char)*at++;
        if (c == '"') return at;
        if (c < 0x20) return NULL;
        if (c != '\\') continue;
        if (at == end) return NULL;
        const char kind = *at++;
        if (kind == 'u' ? json_point(&at, end) < 0 : kind == '\0' || !strchr("\"\\/bfnrt", kind)) return NULL;
    }
    return NULL;
}

static inline const char *json_digits(const char *at, const char *end) {
    const char *first = at;
    while (at < end && *at >= '0' && *at <= '9')
        at++;
    return at > first ? at : NULL;
}

static inline const char *json_number(const char *at, const char *end) {
    if (at < end && *at == '-') at++;
    if (at < end && *at == '0')
        at++;
    else if (!(at = json_digits(at, end)))
        return NULL;
    if (at < end && *at == '.' && !(at = json_digits(at + 1, end))) return NULL;
    if (at < end && (*at == 'e' || *at == 'E')) {
        at++;
        if (at < end && (*at == '+' || *at == '-')) at++;
        at = json_digits(at, end);
    }
    return at;
}

static inline const char *json_word(const char *at, const char *end, const char *word) {
    const size_t length = strlen(word);
    return (size_t)(end - at) >= length && memcmp(at, word, length) == 0 ? at + length : NULL;
}

/* Return the end of the value that begins at `at`; NULL if it is invalid, or nested deeper than `depth`. */
static inline const char *json_value(const char *at, const char *end, int depth) {
    if (at == end || depth == 0) return NULL;
    switch (*at) {
    case '"': return json_string(at, end);
    case 't': return json_word(at, end, "true");
    case 'f': return json_word(at, end, "false");
    case 'n': return json_word(at, end, "null");
    case '{':
    case '[': break;
    default: return json_number(at, end);
    }
    const bool object = *at == '{';
    const char close = object ? '}' : ']';
    at = json_blank(at + 1, end);
    if (at < end && *at == close) return at + 1;
    while (at < end) {
        if (object) {
            if (!(at = json_string(at, end))) return NULL;
            at = json_blank(at, end);
            if (at == end || *at != ':') return NULL;
            at = json_blank(at + 1, end);
        }
        if (!(at = json_value(at, end, depth - 1))) return NULL;
        at = json_blank(at, end);
        if (at == end) return NULL;
        if (*at == close) return at + 1;
        if (*at != ',') return NULL;
        at = json_blank(at + 1, end);
    }
    return NULL;
}

/* Whether a text is exactly one JSON object in UTF-8. */
static inline bool json_is_object(json_span text) {
    if (utf8_length(text.at, text.end) < 0) return false;
    const char *at = json_blank(text.at, text.end);
    if (at == text.end || *at != '{' || !(at = json_value(at, text.end, JSON_DEPTH))) return false;
    return json_blank(at, text.end) == text.end;
}

/* Find the member `path`, such as "source.frame", of a text that json_is_object accepts; false if there is
 * none. */
static inline bool json_find(json_span text, const char *path, json_span *found) {
    const char *at = json_blank(text.at, text.end), *const end = text.end;
    for (;;) {
        const size_t length = strcspn(path, ".");
        if (at == end || *at != '{') return false;
        at = json_blank(at + 1, end);
        for (;;) {
            if (*at == '}') return false;
            const char *key = at + 1;
            at = json_string(at, end);
            const bool same = (size_t)(at - 1 - key) == length && memcmp(key, path, length) == 0;
            at = json_blank(json_blank(at, end) + 1, end);
            if (same) break;
            at = json_blank(json_value(at, end, JSON_DEPTH), end);
            if (*at == ',') at = json_blank(at + 1, end);
        }
        if (path[length] == '\0') {
            found->at = at;
            found->end = json_value(at, end, JSON_DEPTH);
            return true;
        }
        path += length + 1;
    }
}

/* Decode a string to UTF-8, which needs no more bytes than the span; false if it is not a string. */
static inline bool json_text(json_span string, char *text) {
    if (string.at == string.end || *string.at != '"') return false;
    const char *at = string.at + 1, *const end = string.end - 1;
    while (at < end) {
        if (*at != '\\') {
            *text++ = *at++;
            continue;
        }
        const char kind = at[1];
        at += 2;
        if (kind != 'u') {
            const char *const which = strchr("b\bf\fn\nr\rt\t", kind);
            *text++ = which ? which[1] : kind;
            continue;
        }
        int32_t point = json_point(&at, end);
        if (point == 0) point = 0xFFFD; /* a text in C ends at its first NUL */
        const int more = point < 0x80 ? 0 : point < 0x800 ? 1 : point < 0x10000 ? 2 : 3;
        static const unsigned char lead[] = {0, 0xC0, 0xE0, 0xF0};
        *text++ = (char)(lead[more] | point >> 6 * more);
        for (int k = more - 1; k >= 0; k--)
            *text++ = (char)(0x80 | (point >> 6 * k & 0x3F));
    }
    *text = '\0';
    return true;
}

/* Decode a number; false if it is not a number, or too long for a measured value. */
static inline bool json_double(json_span number, double *value) {
    char text[JSON_NUMBER_BYTES + 16];
    const size_t length = (size_t)(number.end - number.at);
    if (length >= JSON_NUMBER_BYTES || !strchr("-0123456789", *number.at)) return false;
    /* strtod uses the decimal separator of the process, which the program that loads this library may set. */
    const char *const separator = localeconv()->decimal_point;
    char *out = text;
    for (const char *at = number.at; at < number.end; at++) {
        if (*at == '.' && strlen(separator) < 16) {
            memcpy(out, separator, strlen(separator));
            out += strlen(separator);
        } else {
            *out++ = *at;
        }
    }
    *out = '\0';
    *value = strtod(text, NULL);
    return true;
}

#endif
