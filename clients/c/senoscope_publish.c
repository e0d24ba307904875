/* The frame publisher for the acquisition PC in C: the functions of senoscope_publish.h, and a program.
 *
 *     cc -std=c11 senoscope_publish.c -o senoscope_publish -lzmq
 *     cc -std=c11 -DSENOSCOPE_LIBRARY -shared -fPIC senoscope_publish.c -o libsenoscope_publish.so -lzmq
 */
#if !defined(_WIN32) && !defined(_POSIX_C_SOURCE)
#define _POSIX_C_SOURCE 200809L
#endif
#ifdef _WIN32
#define _CRT_RAND_S
#define _CRT_SECURE_NO_WARNINGS
#endif

#include "senoscope_publish.h"

#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <zmq.h>

#include "senoscope_curve_server.h"
#include "senoscope_json.h"
#include "senoscope_writer.h"

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "pixels are sent as they are in memory, and must be little-endian"
#endif

enum {
    MAX_PIXEL_BYTES = 64 * 1024 * 1024,
    MAX_EXTENT = 65536,
    MAX_NAME = 64,
    MAX_TEXT = 1024,
    MAX_SUBSCRIPTION_BYTES = 4096, /* ZeroMQ disconnects subscribers that send more */
    HIGH_WATER_MARK = 500,
    LINGER_MS = 2000,
    POLL_MS = 10,
    UID_SIZE = 37
};
#define MAX_INTEGER 9007199254740991 /* 2^53 - 1: readers may store numbers as doubles */
#define HEARTBEAT_US 1000000UL

struct senoscope_publisher {
    void *context, *socket, *clock;
    curve_access access;
    char instrument[4 * MAX_NAME + 1];
    char topic[4 * MAX_NAME + 32];
    char endpoint[256];
    char error[512];
    int subscriptions; /* distinct subscriptions that frames match */
    bool in_message;   /* the next part belongs to the same message of a subscriber */
    bool open;
    bool broken; /* a message is incomplete: further parts would be received as its rest */
    int64_t frames;
    int32_t channel_count;
    unsigned long last_heartbeat_us;
    writer common;    /* the beginning of every header of the series */
    writer announced; /* fields of start and heartbeat: properties of the whole series */
    writer channels;
    writer pixel_size;
    writer header; /* of the message that is being sent */
};

static char open_error[512];

/* Errors. */

static int32_t fail(senoscope_publisher *publisher, int32_t code, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(publisher->error, sizeof publisher->error, format, arguments);
    va_end(arguments);
    return code;
}

#define BAD(...) fail(publisher, SENOSCOPE_BAD_ARGUMENT, __VA_ARGS__)

static int32_t check_text(senoscope_publisher *publisher, const char *what, const char *text, int64_t most) {
    if (!text) return BAD("%s is missing", what);
    const int64_t length = utf8_length(text, text + strlen(text));
    if (length < 0) return BAD("%s is not UTF-8; convert it from the encoding of this machine", what);
    if (length > most)
        return BAD("%s has %lld characters; at most %lld are allowed", what, (long long)length,
                   (long long)most);
    return 0;
}

static int32_t check_user_data(senoscope_publisher *publisher, const char *user_data) {
    if (text_or_null(user_data) && !json_is_object((json_span){user_data, user_data + strlen(user_data)}))
        return BAD("user_data is not a JSON object in UTF-8");
    return 0;
}

static int32_t check_usable(senoscope_publisher *publisher, bool open) {
    if (publisher->broken)
        return fail(publisher, SENOSCOPE_NETWORK, "a message could not be sent; open a new publisher");
    if (open && !publisher->open)
        return fail(publisher, SENOSCOPE_WRONG_STATE, "no series is open; start one first");
    return 0;
}

/* An instrument's name is one level of a topic: without slash, blank (of any script) or control character. */
static int32_t check_instrument(senoscope_publisher *publisher, const char *name) {
    const int32_t code = check_text(publisher, "the instrument's name", name, MAX_NAME);
    if (code < 0) return code;
    if (!*name) return BAD("the instrument's name is empty");
    for (const char *at = name, *const end = name + strlen(name); at < end;) {
        const int32_t c = utf8_next(&at, end);
        if (c <= 0x20 || c == 0x7F || c == '/' || c == 0x85 || c == 0xA0 || c == 0x1680 ||
            (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
            c == 0x3000)
            return BAD("the instrument's name has a slash, a blank or a control character");
    }
    return 0;
}

/* Sending. */

static int32_t send_failed(senoscope_publisher *publisher) {
    publisher->broken = true;
    return fail(publisher, SENOSCOPE_NETWORK, "a message cannot be sent: %s", zmq_strerror(zmq_errno()));
}

/* Count subscriptions; an XPUB socket receives the first of equal subscriptions, the end of the last, and
 * other messages of subscribers, which begin with another byte, or have several parts. */
static void read_subscriptions(senoscope_publisher *publisher) {
    char message[1 + sizeof publisher->topic], frames[sizeof publisher->topic];
    snprintf(frames, sizeof frames, "fov/%s/image", publisher->instrument);
    for (;;) {
        const int size = zmq_recv(publisher->socket, message, sizeof message, ZMQ_DONTWAIT);
        if (size < 0 && zmq_errno() == EINTR) continue;
        if (size < 0) return;
        const bool first = !publisher->in_message;
        int more = 0;
        size_t room = sizeof more;
        zmq_getsockopt(publisher->socket, ZMQ_RCVMORE, &more, &room);
        publisher->in_message = more != 0;
        if (!first || more || size < 1 || (message[0] != 0 && message[0] != 1)) continue;
        /* A subscription that is longer than the topic of frames cannot match it. */
        if ((size_t)size - 1 > strlen(frames) || memcmp(message + 1, frames, (size_t)size - 1) != 0) continue;
        publisher->subscriptions += message[0] == 1 ? 1 : -1;
    }
}

/* Send topic and header; `more` is ZMQ_SNDMORE if pixels follow. */
static int32_t send_head(senoscope_publisher *publisher, const char *type, int more) {
    if (publisher->header.full)
        return BAD("the header has more than %d bytes; user_data or the channels' names are too long",
                   MAX_HEADER_BYTES);
    const int size =
        snprintf(publisher->topic, sizeof publisher->topic, "fov/%s/%s", publisher->instrument, type);
    if (!send_part(publisher->socket, publisher->topic, (size_t)size, ZMQ_SNDMORE) ||
        !send_part(publisher->socket, publisher->header.text, publisher->header.used, more))
        return send_failed(publisher);
    return 0;
}

static writer *begin_header(senoscope_publisher *publisher) {
    publisher->header.used = 0;
    publisher->header.full = false;
    put_writer(&publisher->header, &publisher->common);
    return &publisher->header;
}

static int32_t send_announced(senoscope_publisher *publisher, const char *type) {
    writer *const out = begin_header(publisher);
    put_writer(out, &publisher->announced);
    put_format(out, ",\"htype\":\"nlo-fov-%s-1.0\",\"type\":\"%s\"", type, type);
    if (publisher->open && publisher->frames > 0)
        put_format(out, ",\"frame\":%lld", (long long)publisher->frames - 1);
    put_text(out, "}");
    const int32_t code = send_head(publisher, type, 0);
    if (code == 0) publisher->last_heartbeat_us = zmq_stopwatch_intermediate(publisher->clock);
    return code;
}

static bool heartbeat_is_due(const senoscope_publisher *publisher) {
    return zmq_stopwatch_intermediate(publisher->clock) - publisher->last_heartbeat_us >= HEARTBEAT_US;
}

static bool set_int(void *socket, int name, int value) {
    return zmq_setsockopt(socket, name, &value, sizeof value) == 0;
}

static int32_t secure(senoscope_publisher *publisher, const char *curve_keypair, const char *allowed_keys) {
    char public_key[CURVE_KEY_SIZE], secret_key[CURVE_KEY_SIZE], first[CURVE_KEY_SIZE];
    if (!zmq_has("curve")) return BAD("this libzmq was built without CURVE");
    if (!curve_load_pair(curve_keypair, public_key, secret_key, publisher->error, sizeof publisher->error) ||
        (allowed_keys && !curve_load_public(allowed_keys, first, publisher->error, sizeof publisher->error)))
        return SENOSCOPE_BAD_ARGUMENT;
    if (!set_int(publisher->socket, ZMQ_CURVE_SERVER, 1) ||
        zmq_setsockopt(publisher->socket, ZMQ_CURVE_SECRETKEY, secret_key, sizeof secret_key) != 0 ||
        (allowed_keys &&
         !curve_access_open(&publisher->access, publisher->context, publisher->socket, allowed_keys)))
        return fail(publisher, SENOSCOPE_NETWORK, "CURVE cannot be set up: %s", zmq_strerror(zmq_errno()));
    return 0;
}

static int32_t bind_stream(senoscope_publisher *publisher, const char *endpoint, const char *instrument,
                           const char *curve_keypair, const char *allowed_keys) {
    int32_t code = check_instrument(publisher, instrument);
    if (code < 0) return code;
    if (!endpoint) return BAD("the endpoint is missing");
    if (allowed_keys && !curve_keypair)
        return BAD("allowed keys need a key pair: subscribers are identified by CURVE keys");
    strcpy(publisher->instrument, instrument);
    publisher->context = zmq_ctx_new();
    publisher->clock = zmq_stopwatch_start();
    /* XPUB is PUB that also receives the subscriptions. */
    publisher->socket = publisher->context ? zmq_socket(publisher->context, ZMQ_XPUB) : NULL;
    const int64_t most = MAX_SUBSCRIPTION_BYTES;
    if (!publisher->socket || !publisher->clock || !set_int(publisher->socket, ZMQ_SNDHWM, HIGH_WATER_MARK) ||
        !set_int(publisher->socket, ZMQ_LINGER, LINGER_MS) ||
        zmq_setsockopt(publisher->socket, ZMQ_MAXMSGSIZE, &most, sizeof most) != 0)
        return fail(publisher, SENOSCOPE_NETWORK, "ZeroMQ cannot start: %s", zmq_strerror(zmq_errno()));
    if (curve_keypair && (code = secure(publisher, curve_keypair, allowed_keys)) < 0) return code;
    size_t size = sizeof publisher->endpoint;
    if (zmq_bind(publisher->socket, endpoint) != 0 ||
        zmq_getsockopt(publisher->socket, ZMQ_LAST_ENDPOINT, publisher->endpoint, &size) != 0)
        return fail(publisher, SENOSCOPE_NETWORK, "the frame stream cannot be bound at %s: %s", endpoint,
                    zmq_strerror(zmq_errno()));
    return 0;
}

static void release_all(senoscope_publisher *publisher) {
    if (publisher->socket) zmq_close(publisher->socket);
    if (publisher->context)
        zmq_ctx_shutdown(publisher->context); /* ends the other thread; queued messages are still sent */
    curve_access_close(&publisher->access);
    while (publisher->context && zmq_ctx_term(publisher->context) != 0 && zmq_errno() == EINTR) {
    }
    if (publisher->clock) zmq_stopwatch_stop(publisher->clock);
    free(publisher);
}

senoscope_publisher *senoscope_open(const char *endpoint, const char *instrument, const char *curve_keypair,
                                    const char *allowed_keys) {
    senoscope_publisher *const publisher = calloc(1, sizeof *publisher);
    if (!publisher) {
        snprintf(open_error, sizeof open_error, "not enough memory");
        return NULL;
    }
    if (bind_stream(publisher, endpoint, instrument, text_or_null(curve_keypair),
                    text_or_null(allowed_keys)) < 0) {
        memcpy(open_error, publisher->error, sizeof open_error);
        release_all(publisher);
        return NULL;
    }
    return publisher;
}

const char *senoscope_last_error(const senoscope_publisher *publisher) {
    return publisher ? publisher->error : open_error;
}

const char *senoscope_endpoint(const senoscope_publisher *publisher) { return publisher->endpoint; }

int32_t senoscope_wait_for_subscriber(senoscope_publisher *publisher, int32_t timeout_ms) {
    void *const waited = zmq_stopwatch_start();
    for (;;) {
        read_subscriptions(publisher);
        if (publisher->subscriptions > 0 ||
            zmq_stopwatch_intermediate(waited) / 1000 >= (unsigned long)timeout_ms)
            break;
        zmq_poll(NULL, 0, POLL_MS);
    }
    zmq_stopwatch_stop(waited);
    return publisher->subscriptions > 0;
}

/* Series. */

static int32_t new_uid(senoscope_publisher *publisher, char uid[UID_SIZE]) {
    unsigned char bytes[16];
#ifdef _WIN32
    for (int k = 0; k < 4; k++) {
        unsigned int random;
        if (rand_s(&random) != 0)
            return fail(publisher, SENOSCOPE_NETWORK, "random numbers are not available");
        memcpy(bytes + 4 * k, &random, 4);
    }
#else
    FILE *const source = fopen("/dev/urandom", "rb");
    const bool read = source && fread(bytes, sizeof bytes, 1, source) == 1;
    if (source) fclose(source);
    if (!read) return fail(publisher, SENOSCOPE_NETWORK, "/dev/urandom cannot be read");
#endif
    bytes[6] = (unsigned char)(0x40 | (bytes[6] & 0x0F)); /* version 4: random */
    bytes[8] = (unsigned char)(0x80 | (bytes[8] & 0x3F));
    for (int k = 0, at = 0; k < 16; k++) {
        if (k == 4 || k == 6 || k == 8 || k == 10) uid[at++] = '-';
        at += snprintf(uid + at, 3, "%02x", bytes[k]);
    }
    return 0;
}

static int32_t set_uid(senoscope_publisher *publisher, const char *given, char uid[UID_SIZE]) {
    if (!given) return new_uid(publisher, uid);
    for (int k = 0; k < UID_SIZE - 1; k++) {
        const bool dash = k == 8 || k == 13 || k == 18 || k == 23;
        if (!given[k] || (dash ? given[k] != '-' : !strchr("0123456789abcdefABCDEF", given[k])))
            return BAD("series_uid is not a UUID such as 0192f0c1-7a4e-7cc3-98c4-dc0c0c07398f");
        uid[k] = (char)(given[k] >= 'A' && given[k] <= 'F' ? given[k] - 'A' + 'a' : given[k]);
    }
    uid[UID_SIZE - 1] = '\0';
    return given[UID_SIZE - 1] ? BAD("series_uid is longer than a UUID") : 0;
}

/* Set the channels from names separated by commas, each once. */
static int32_t set_channels(senoscope_publisher *publisher, const char *names) {
    writer *const out = &publisher->channels;
    int32_t count = 0;
    const int32_t code = check_text(publisher, "the list of channels", names, MAX_HEADER_BYTES);
    if (code < 0) return code;
    put_text(out, "[");
    for (const char *at = names;; count++) {
        const size_t length = strcspn(at, ",");
        const int64_t characters = utf8_length(at, at + length);
        if (characters < 1 || characters > MAX_NAME)
            return BAD("a channel's name has 1 to %d characters", MAX_NAME);
        for (const char *other = names; other < at; other += strcspn(other, ",") + 1)
            if (strcspn(other, ",") == length && memcmp(other, at, length) == 0)
                return BAD("two channels have the name %.*s", (int)length, at);
        put_text(out, count ? "," : "");
        put_string(out, at, length);
        if (!at[length]) break;
        at += length + 1;
    }
    put_text(out, "]");
    publisher->channel_count = count + 1;
    return 0;
}

static int32_t check_series(senoscope_publisher *publisher, const senoscope_series *series) {
    int32_t code = check_text(publisher, "series_id", series->series_id, MAX_TEXT);
    if (code < 0 || (code = check_user_data(publisher, series->user_data)) < 0) return code;
    const double lengths[] = {series->pump_wavelength_nm, series->stokes_wavelength_nm,
                              series->wavenumber_cm1, series->pixel_size_um};
    for (int k = 0; k < 4; k++)
        if (!isfinite(lengths[k]) || lengths[k] < 0)
            return BAD("wavelengths, wavenumber and pixel size must be positive, or 0 if not known");
    const int64_t counts[] = {series->planned_frames, series->mosaic_rows, series->mosaic_columns};
    for (int k = 0; k < 3; k++)
        if (counts[k] < 0 || counts[k] > MAX_INTEGER)
            return BAD("planned frames, rows and columns must be positive, or 0 if not known");
    if (!series->mosaic_rows != !series->mosaic_columns) return BAD("a mosaic needs both rows and columns");
    return 0;
}

static void write_series(writer *out, const senoscope_series *series) {
    if (series->planned_frames)
        put_format(out, ",\"planned_frames\":%lld", (long long)series->planned_frames);
    if (series->mosaic_rows)
        put_format(out, ",\"mosaic\":{\"rows\":%lld,\"columns\":%lld}", (long long)series->mosaic_rows,
                   (long long)series->mosaic_columns);
    if (series->pump_wavelength_nm != 0)
        put_key_double(out, ",\"pump_wavelength_nm\":", series->pump_wavelength_nm);
    if (series->stokes_wavelength_nm != 0)
        put_key_double(out, ",\"stokes_wavelength_nm\":", series->stokes_wavelength_nm);
    if (series->wavenumber_cm1 != 0) put_key_double(out, ",\"wavenumber_cm1\":", series->wavenumber_cm1);
    put_text(out, ",\"user_data\":");
    put_text(out, text_or_null(series->user_data) ? series->user_data : "{}");
}

int32_t senoscope_start_series_with(senoscope_publisher *publisher, const senoscope_series *series) {
    char uid[UID_SIZE];
    int32_t code = check_usable(publisher, false);
    if (code < 0) return code;
    if (publisher->open)
        return fail(publisher, SENOSCOPE_WRONG_STATE, "a series is still open; end it first");
    if ((code = check_series(publisher, series)) < 0 ||
        (code = set_uid(publisher, text_or_null(series->series_uid), uid)) < 0)
        return code;
    writer *const fresh[] = {&publisher->common, &publisher->announced, &publisher->channels,
                             &publisher->pixel_size};
    for (int k = 0; k < 4; k++) {
        fresh[k]->used = 0;
        fresh[k]->full = false;
    }
    code =
        set_channels(publisher, text_or_null(series->channels) ? series->channels : "SRS,TPEF,Transmission");
    if (code < 0) return code;
    writer *const out = &publisher->common;
    put_text(out, "{\"format\":\"nlo-fov\",\"version\":\"1.0\",\"instrument\":");
    put_string(out, publisher->instrument, strlen(publisher->instrument));
    put_text(out, ",\"series_id\":");
    put_string(out, series->series_id, strlen(series->series_id));
    put_format(out, ",\"series_uid\":\"%s\"", uid);
    write_series(&publisher->announced, series);
    put_double(&publisher->pixel_size, series->pixel_size_um != 0 ? series->pixel_size_um : 0.35);
    if ((code = send_announced(publisher, "start")) < 0) return code;
    publisher->open = true;
    publisher->frames = 0;
    return 0;
}

int32_t senoscope_start_series(senoscope_publisher *publisher, const char *series_id,
                               int64_t planned_frames) {
    const senoscope_series series = {.series_id = series_id, .planned_frames = planned_frames};
    return senoscope_start_series_with(publisher, &series);
}

int32_t senoscope_heartbeat(senoscope_publisher *publisher) {
    const int32_t code = check_usable(publisher, true);
    return code < 0 ? code : send_announced(publisher, "heartbeat");
}

int64_t senoscope_end_series(senoscope_publisher *publisher, const char *reason) {
    if (!text_or_null(reason)) reason = "completed";
    int32_t code = check_usable(publisher, true);
    if (code < 0 || (code = check_text(publisher, "the reason", reason, MAX_TEXT)) < 0) return code;
    writer *const out = begin_header(publisher);
    put_format(out, ",\"htype\":\"nlo-fov-end-1.0\",\"type\":\"end\",\"frames_sent\":%lld,\"reason\":",
               (long long)publisher->frames);
    put_string(out, reason, strlen(reason));
    put_text(out, "}");
    if ((code = send_head(publisher, "end", 0)) < 0) return code;
    publisher->open = false;
    return publisher->frames;
}

/* Frames. */

static const char *dtype_name(int32_t dtype) {
    return dtype == SENOSCOPE_UINT8     ? "uint8"
           : dtype == SENOSCOPE_UINT16  ? "uint16"
           : dtype == SENOSCOPE_FLOAT32 ? "float32"
                                        : NULL;
}

static int32_t check_frame(senoscope_publisher *publisher, const senoscope_frame *frame) {
    const int32_t extents[] = {frame->channels, frame->height, frame->width};
    int64_t bytes = frame->dtype;
    if (!frame->pixels) return BAD("the pixels are missing");
    if (!dtype_name(frame->dtype)) return BAD("the dtype must be SENOSCOPE_UINT8, _UINT16 or _FLOAT32");
    for (int k = 0; k < 3; k++) {
        if (extents[k] < 1 || extents[k] > MAX_EXTENT)
            return BAD("channels, height and width must be 1 to %d", MAX_EXTENT);
        if ((bytes *= extents[k]) > MAX_PIXEL_BYTES)
            return BAD("a frame has at most %d bytes", MAX_PIXEL_BYTES);
    }
    if (frame->channels != publisher->channel_count)
        return BAD("the frame has %d channels, its series %d", (int)frame->channels,
                   (int)publisher->channel_count);
    for (int k = 0; k < 3; k++) {
        if (frame->position_um && !isfinite(frame->position_um[k]))
            return BAD("the stage position is not finite");
        if (frame->index && (frame->index[k] < 0 || frame->index[k] > MAX_INTEGER))
            return BAD("an index must not be negative");
    }
    if (!isfinite(frame->exposure_ms) || frame->exposure_ms < 0)
        return BAD("the exposure must not be negative");
    if (frame->seconds < 0 || frame->seconds > 253402300799 || frame->nanoseconds < 0 ||
        frame->nanoseconds > 999999999)
        return BAD("the time stamp is not between the years 1970 and 9999");
    return check_user_data(publisher, frame->user_data);
}

static void write_image_header(senoscope_publisher *publisher, const senoscope_frame *frame) {
    int64_t seconds = frame->seconds, nanoseconds = frame->nanoseconds;
    if (seconds == 0) {
        struct timespec now;
        timespec_get(&now, TIME_UTC);
        seconds = (int64_t)now.tv_sec;
        nanoseconds = (int64_t)now.tv_nsec;
    }
    writer *const out = begin_header(publisher);
    put_format(out, ",\"htype\":\"array-1.0\",\"type\":\"image\",\"frame\":%lld",
               (long long)publisher->frames);
    put_format(out, ",\"shape\":[%d,%d,%d],\"axes\":\"CYX\",\"dtype\":\"%s\",\"channels\":",
               (int)frame->channels, (int)frame->height, (int)frame->width, dtype_name(frame->dtype));
    put_writer(out, &publisher->channels);
    put_format(out, ",\"timestamp\":{\"seconds\":%lld,\"nanoseconds\":%lld},\"pixel_size_um\":",
               (long long)seconds, (long long)nanoseconds);
    put_writer(out, &publisher->pixel_size);
    if (frame->position_um) {
        put_key_double(out, ",\"position_um\":{\"x\":", frame->position_um[0]);
        put_key_double(out, ",\"y\":", frame->position_um[1]);
        put_key_double(out, ",\"z\":", frame->position_um[2]);
        put_text(out, "}");
    }
    if (frame->index)
        put_format(out, ",\"index\":{\"p\":%lld,\"t\":%lld,\"z\":%lld}", (long long)frame->index[0],
                   (long long)frame->index[1], (long long)frame->index[2]);
    if (frame->exposure_ms != 0) put_key_double(out, ",\"exposure_ms\":", frame->exposure_ms);
    put_text(out, ",\"user_data\":");
    put_text(out, text_or_null(frame->user_data) ? frame->user_data : "{}");
    put_text(out, "}");
}

/* Send a frame; with `release`, `*taken` is set once ZeroMQ is responsible for calling it. */
static int64_t publish(senoscope_publisher *publisher, const senoscope_frame *frame,
                       void (*release)(void *, void *), void *hint, bool *taken) {
    int32_t code = check_usable(publisher, true);
    if (code < 0 || (code = check_frame(publisher, frame)) < 0) return code;
    const size_t size =
        (size_t)frame->dtype * (size_t)frame->channels * (size_t)frame->height * (size_t)frame->width;
    zmq_msg_t pixels;
    const int made = release ? zmq_msg_init_data(&pixels, (void *)frame->pixels, size, release, hint)
                             : zmq_msg_init_size(&pixels, size);
    if (made != 0) return fail(publisher, SENOSCOPE_NETWORK, "not enough memory for a frame");
    *taken = true;
    if (!release) memcpy(zmq_msg_data(&pixels), frame->pixels, size);
    write_image_header(publisher, frame);
    if ((code = send_head(publisher, "image", ZMQ_SNDMORE)) < 0) {
        zmq_msg_close(&pixels);
        return code;
    }
    while (zmq_msg_send(&pixels, publisher->socket, 0) < 0)
        if (zmq_errno() != EINTR) {
            zmq_msg_close(&pixels);
            return send_failed(publisher);
        }
    const int64_t number = publisher->frames++;
    read_subscriptions(publisher); /* after sending, which must not be delayed */
    if (heartbeat_is_due(publisher)) send_announced(publisher, "heartbeat");
    return number;
}

int64_t senoscope_publish_frame_nocopy(senoscope_publisher *publisher, const senoscope_frame *frame,
                                       void (*release)(void *pixels, void *hint), void *hint) {
    bool taken = false;
    const int64_t number = publish(publisher, frame, release, hint, &taken);
    if (!taken) release((void *)frame->pixels, hint);
    return number;
}

int64_t senoscope_publish_frame_with(senoscope_publisher *publisher, const senoscope_frame *frame) {
    bool taken;
    return publish(publisher, frame, NULL, NULL, &taken);
}

int64_t senoscope_publish_frame(senoscope_publisher *publisher, const uint16_t *pixels, int32_t channels,
                                int32_t height, int32_t width, double x_um, double y_um, double z_um) {
    const double position[] = {x_um, y_um, z_um};
    const bool known = !isnan(x_um) || !isnan(y_um) || !isnan(z_um);
    const senoscope_frame frame = {.pixels = pixels,
                                   .dtype = SENOSCOPE_UINT16,
                                   .channels = channels,
                                   .height = height,
                                   .width = width,
                                   .position_um = known ? position : NULL};
    return senoscope_publish_frame_with(publisher, &frame);
}

void senoscope_close(senoscope_publisher *publisher) {
    if (!publisher) return;
    if (publisher->open && !publisher->broken) senoscope_end_series(publisher, "aborted");
    release_all(publisher);
}

#ifndef SENOSCOPE_LIBRARY
#include "senoscope_microscope.h"
#endif
