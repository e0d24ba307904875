/* Writing of JSON without blanks and with the escapes and digits of the Python client, so that the bytes are
 * equal. */
#ifndef SENOSCOPE_WRITER_H
#define SENOSCOPE_WRITER_H

#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_HEADER_BYTES = 64 * 1024 };

typedef struct {
    size_t used;
    bool full; /* the text is incomplete, because it did not fit */
    char text[MAX_HEADER_BYTES];
} writer;

static inline void put(writer *out, const char *text, size_t length) {
    if (length > sizeof out->text - out->used) {
        out->full = true;
        return;
    }
    memcpy(out->text + out->used, text, length);
    out->used += length;
}

static inline void put_text(writer *out, const char *text) { put(out, text, strlen(text)); }

/* Write as printf does; only for numbers without a decimal separator, and texts that need no escapes. */
static inline void put_format(writer *out, const char *format, ...) {
    const size_t room = sizeof out->text - out->used;
    va_list arguments;
    va_start(arguments, format);
    const int size = vsnprintf(out->text + out->used, room, format, arguments);
    va_end(arguments);
    if (size < 0 || (size_t)size >= room)
        out->full = true;
    else
        out->used += (size_t)size;
}

static inline void put_writer(writer *out, const writer *in) {
    put(out, in->text, in->used);
    out->full |= in->full;
}

static inline void put_string(writer *out, const char *text, size_t length) {
    put(out, "\"", 1);
    for (const char *at = text; at < text + length; at++) {
        const unsigned char c = (unsigned char)*at;
        const char *const letter = c ? strchr("\bb\ff\nn\rr\tt\"\"\\\\", c) : NULL;
        char escape[8] = {'\\'};
        if (letter && (c < 0x20 || c == '"' || c == '\\')) {
            escape[1] = letter[1];
            put(out, escape, 2);
        } else if (c < 0x20) {
            snprintf(escape, sizeof escape, "\\u%04x", c);
            put(out, escape, 6);
        } else {
            put(out, at, 1);
        }
    }
    put(out, "\"", 1);
}

/* Write the fewest digits that represent the same double. */
static inline void put_double(writer *out, double value) {
    char text[64], digits[24];
    int count = 0, exponent = 0;
    for (int precision = 0; precision < 17; precision++) {
        snprintf(text, sizeof text, "%.*e", precision, value);
        if (strtod(text, NULL) == value) break;
    }
    const char *const mark = strchr(text, 'e');
    exponent = (int)strtol(mark + 1, NULL, 10);
    /* Only digits are copied, because the decimal separator depends on the locale of the process. */
    for (const char *at = text; at < mark; at++)
        if (*at >= '0' && *at <= '9') digits[count++] = *at;
    if (signbit(value)) put(out, "-", 1);
    if (exponent < -5 || exponent > 15) {
        put(out, digits, 1);
        if (count > 1) {
            put(out, ".", 1);
            put(out, digits + 1, (size_t)count - 1);
        }
        put(out, text, (size_t)snprintf(text, sizeof text, "e%+d", exponent));
        return;
    }
    if (exponent < 0) put(out, "0.00000", (size_t)(1 - exponent));
    for (int k = 0; k < count || k <= exponent; k++) {
        if (k == exponent + 1 && exponent >= 0) put(out, ".", 1);
        put(out, k < count ? digits + k : "0", 1);
    }
    if (exponent >= 0 && count <= exponent + 1) put(out, ".0", 2);
}

static inline void put_key_double(writer *out, const char *key, double value) {
    put_text(out, key);
    put_double(out, value);
}

#endif
