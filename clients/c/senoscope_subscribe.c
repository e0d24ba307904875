/* The other end of Senoscope's results in C: the functions of senoscope_subscribe.h, and a program.
 *
 *     cc -std=c11 senoscope_subscribe.c -o senoscope_subscribe -lzmq
 *     cc -std=c11 -DSENOSCOPE_LIBRARY -shared -fPIC senoscope_subscribe.c -o libsenoscope_subscribe.so -lzmq
 */
#if !defined(_WIN32) && !defined(_POSIX_C_SOURCE)
#define _POSIX_C_SOURCE 200809L
#endif
#ifdef _WIN32
#define _CRT_SECURE_NO_WARNINGS
#endif

#include "senoscope_subscribe.h"

#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

#include "senoscope_curve.h"
#include "senoscope_json.h"

#define MONITOR "inproc://senoscope-results-monitor"

enum {
    HIGH_WATER_MARK = 1000,
    MAX_RESULT_BYTES = 16 * 1024 * 1024, /* of one part; with the Grad-CAM map a result has some 100 kB */
    SLICE_MS = 200,
    MAX_HANG_UPS = 10, /* handshakes in a row that the service breaks off; ZeroMQ tries again after each */
    EVENTS = ZMQ_EVENT_HANDSHAKE_FAILED_AUTH | ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL |
             ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL | ZMQ_EVENT_HANDSHAKE_SUCCEEDED
};

struct senoscope_results {
    void *context, *socket, *monitor;
    char *json;  /* the last result, with an end */
    char *text;  /* what was last taken out of it; never longer */
    size_t size; /* of the result */
    size_t room; /* for either */
    int64_t rejected;
    int hang_ups;
    char endpoint[256];
    char error[512];
};

static char open_error[512];

static int32_t fail(senoscope_results *results, int32_t code, const char *what, const char *why) {
    snprintf(results->error, sizeof results->error, "%s%s", what, why);
    return code;
}

static bool set_int(void *socket, int name, int value) {
    return zmq_setsockopt(socket, name, &value, sizeof value) == 0;
}

static bool set_key(void *socket, int name, const char key[CURVE_KEY_SIZE]) {
    return zmq_setsockopt(socket, name, key, CURVE_KEY_SIZE) == 0;
}

static int32_t secure(senoscope_results *results, const char *server_key, const char *curve_keypair) {
    char server[CURVE_KEY_SIZE], public_key[CURVE_KEY_SIZE], secret_key[CURVE_KEY_SIZE];
    if (!zmq_has("curve"))
        return fail(results, SENOSCOPE_BAD_ARGUMENT, "this libzmq was built without CURVE", "");
    if (!curve_load_public(server_key, server, results->error, sizeof results->error) ||
        !curve_load_pair(curve_keypair, public_key, secret_key, results->error, sizeof results->error))
        return SENOSCOPE_BAD_ARGUMENT;
    if (!set_key(results->socket, ZMQ_CURVE_SERVERKEY, server) ||
        !set_key(results->socket, ZMQ_CURVE_PUBLICKEY, public_key) ||
        !set_key(results->socket, ZMQ_CURVE_SECRETKEY, secret_key))
        return fail(results, SENOSCOPE_NETWORK, "CURVE cannot be set up: ", zmq_strerror(zmq_errno()));
    return 0;
}

static int32_t subscribe(senoscope_results *results, const char *endpoint, const char *topic,
                         const char *server_key, const char *curve_keypair) {
    const int64_t most = MAX_RESULT_BYTES;
    int32_t code = 0;
    if (!endpoint) return fail(results, SENOSCOPE_BAD_ARGUMENT, "the endpoint is missing", "");
    if (!text_or_null(topic)) topic = "result/";
    if (!server_key != !curve_keypair)
        return fail(results, SENOSCOPE_BAD_ARGUMENT,
                    "CURVE needs both the service's public key and a key pair", "");
    snprintf(results->endpoint, sizeof results->endpoint, "%s", endpoint);
    results->context = zmq_ctx_new();
    results->socket = results->context ? zmq_socket(results->context, ZMQ_SUB) : NULL;
    results->monitor = results->context ? zmq_socket(results->context, ZMQ_PAIR) : NULL;
    if (!results->socket || !results->monitor || !set_int(results->socket, ZMQ_RCVHWM, HIGH_WATER_MARK) ||
        !set_int(results->socket, ZMQ_LINGER, 0) || !set_int(results->monitor, ZMQ_LINGER, 0) ||
        /* A service whose machine went away without a word is noticed, and connected to again. */
        !set_int(results->socket, ZMQ_HEARTBEAT_IVL, 2000) ||
        !set_int(results->socket, ZMQ_HEARTBEAT_TIMEOUT, 6000) ||
        zmq_setsockopt(results->socket, ZMQ_MAXMSGSIZE, &most, sizeof most) != 0 ||
        zmq_setsockopt(results->socket, ZMQ_SUBSCRIBE, topic, strlen(topic)) != 0 ||
        zmq_socket_monitor(results->socket, MONITOR, EVENTS) != 0 ||
        zmq_connect(results->monitor, MONITOR) != 0)
        return fail(results, SENOSCOPE_NETWORK, "ZeroMQ cannot start: ", zmq_strerror(zmq_errno()));
    if (server_key && (code = secure(results, server_key, curve_keypair)) < 0) return code;
    if (zmq_connect(results->socket, endpoint) != 0) {
        snprintf(results->error, sizeof results->error, "results cannot be received from %s: %s", endpoint,
                 zmq_strerror(zmq_errno()));
        return SENOSCOPE_NETWORK;
    }
    return 0;
}

senoscope_results *senoscope_results_open(const char *endpoint, const char *topic, const char *server_key,
                                          const char *curve_keypair) {
    senoscope_results *const results = calloc(1, sizeof *results);
    if (!results) {
        snprintf(open_error, sizeof open_error, "there is no memory left");
        return NULL;
    }
    if (subscribe(results, endpoint, topic, text_or_null(server_key), text_or_null(curve_keypair)) < 0) {
        memcpy(open_error, results->error, sizeof open_error);
        senoscope_results_close(results);
        return NULL;
    }
    return results;
}

const char *senoscope_results_error(const senoscope_results *results) {
    return results ? results->error : open_error;
}

static bool make_room(senoscope_results *results, size_t size) {
    if (size < results->room) return true;
    const size_t room = 2 * size + 4096;
    char *const json = realloc(results->json, room);
    if (json) results->json = json;
    char *const text = realloc(results->text, room);
    if (text) results->text = text;
    if (json && text) results->room = room;
    return json && text;
}

static json_span last(const senoscope_results *results) {
    return (json_span){results->json, results->json + results->size};
}

/* Whether the JSON that came is a result: an object with a label and a probability. */
static bool is_result(senoscope_results *results) {
    json_span label;
    if (!json_is_object(last(results)) || !json_find(last(results), "label", &label) || *label.at != '"')
        return false;
    const double probability = senoscope_results_number(results, "probability");
    return probability >= 0 && probability <= 1; /* which NaN is not */
}

/* Receive all parts of a message that is there: 1 if it is a result, 0 if it is something else. */
static int32_t take(senoscope_results *results) {
    zmq_msg_t part;
    int parts = 0;
    bool kept = true, more = true;
    results->size = 0;
    zmq_msg_init(&part);
    while (more) {
        if (zmq_msg_recv(&part, results->socket, 0) < 0) {
            if (zmq_errno() == EINTR) continue;
            zmq_msg_close(&part);
            return fail(results, SENOSCOPE_NETWORK,
                        "results cannot be received: ", zmq_strerror(zmq_errno()));
        }
        if (++parts == 2 && (kept = make_room(results, zmq_msg_size(&part)))) {
            results->size = zmq_msg_size(&part);
            memcpy(results->json, zmq_msg_data(&part), results->size);
            results->json[results->size] = '\0';
        }
        more = zmq_msg_more(&part);
    }
    zmq_msg_close(&part);
    if (!kept) return fail(results, SENOSCOPE_NETWORK, "there is no memory left for a result", "");
    if (parts == 2 && is_result(results)) return 1;
    results->size = 0;
    results->rejected++;
    return 0;
}

/* What the monitor says: SENOSCOPE_REFUSED, or 0.
 *
 * A service that hangs up on a handshake may do so before its greeting is read: then ZeroMQ gives no reason, and
 * repeated hang-ups are the only sign. */
static int32_t listen_to_monitor(senoscope_results *results) {
    unsigned char event[6] = {0};
    char address[256];
    while (zmq_recv(results->monitor, event, sizeof event, ZMQ_DONTWAIT) >= 0) {
        zmq_recv(results->monitor, address, sizeof address, 0);
        uint16_t kind;
        memcpy(&kind, event, sizeof kind);
        if (kind == ZMQ_EVENT_HANDSHAKE_SUCCEEDED) {
            results->hang_ups = 0;
            continue;
        }
        if (kind == ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL && ++results->hang_ups < MAX_HANG_UPS) continue;
        return fail(
            results, SENOSCOPE_REFUSED, "the service refuses results: ",
            kind == ZMQ_EVENT_HANDSHAKE_FAILED_AUTH
                ? "it does not know this public key: put the .key file into its folder of allowed keys"
                : "it speaks CURVE and this subscriber does not, or the other way round, or its key is another");
    }
    return 0;
}

int32_t senoscope_results_next(senoscope_results *results, int32_t timeout_ms) {
    void *const waited = zmq_stopwatch_start();
    int32_t code = 0;
    for (;;) {
        const long left_ms =
            timeout_ms < 0 ? SLICE_MS : timeout_ms - (long)(zmq_stopwatch_intermediate(waited) / 1000);
        zmq_pollitem_t item = {results->socket, 0, ZMQ_POLLIN, 0};
        const int ready = zmq_poll(&item, 1, left_ms < 0 ? 0 : left_ms < SLICE_MS ? left_ms : SLICE_MS);
        code = ready > 0 ? take(results) : listen_to_monitor(results);
        if (code != 0 || (timeout_ms >= 0 && left_ms <= 0)) break;
    }
    zmq_stopwatch_stop(waited);
    return code;
}

const char *senoscope_results_json(const senoscope_results *results) {
    return results->size ? results->json : "";
}

const char *senoscope_results_text(senoscope_results *results, const char *path) {
    json_span found;
    if (!results->size || !json_find(last(results), path, &found) || !json_text(found, results->text))
        return NULL;
    return results->text;
}

double senoscope_results_number(senoscope_results *results, const char *path) {
    json_span found;
    double value;
    if (!results->size || !json_find(last(results), path, &found) || !json_double(found, &value)) return NAN;
    return value;
}

int64_t senoscope_results_rejected(const senoscope_results *results) { return results->rejected; }

void senoscope_results_close(senoscope_results *results) {
    if (!results) return;
    if (results->socket) zmq_close(results->socket);
    if (results->monitor) zmq_close(results->monitor);
    while (results->context && zmq_ctx_term(results->context) != 0 && zmq_errno() == EINTR) {
    }
    free(results->json);
    free(results->text);
    free(results);
}

#ifndef SENOSCOPE_LIBRARY

/* The program: results as they are made, a line each. */

#include <signal.h>

#include "senoscope_options.h"

#define PROGRAM "senoscope_subscribe"

static volatile sig_atomic_t told_to_stop;

static void stop(int signal_number) {
    (void)signal_number;
    told_to_stop = 1;
}

/* Print a text without what moves the terminal's cursor: whoever names a series has no business with it. */
static void print_text(const char *text) {
    for (const char *at = text ? text : "", *const end = at + strlen(at); at < end;) {
        const char *const first = at;
        const int32_t point = utf8_next(&at, end);
        if (point < 0x20 || (point >= 0x7F && point < 0xA0))
            fputc('?', stdout);
        else
            fwrite(first, (size_t)(at - first), 1, stdout);
    }
}

static void print_result(senoscope_results *results, bool json) {
    if (json) {
        /* One line each, however it was laid out: no string in JSON holds a line's end. */
        for (const char *at = senoscope_results_json(results); *at; at++)
            fputc(*at == '\n' || *at == '\r' ? ' ' : *at, stdout);
    } else {
        const double frame = senoscope_results_number(results, "source.frame");
        if (isnan(frame))
            printf("%7s  ", "");
        else
            printf("%7.0f  ", frame);
        printf("%11.3f ", senoscope_results_number(results, "probability"));
        printf("%8.1f  ", senoscope_results_number(results, "timing_ms.total"));
        print_text(senoscope_results_text(results, "label"));
        printf("  ");
        const char *const file = senoscope_results_text(results, "source.file");
        print_text(file ? file : senoscope_results_text(results, "source.series_id"));
    }
    fputc('\n', stdout);
    fflush(stdout);
}

static int failed(const char *what) {
    fprintf(stderr, PROGRAM ": %s\n", what);
    return 1;
}

static int watch(senoscope_results *results, long count, double timeout_s, bool json) {
    long shown = 0;
    double silent_s = 0;
    while (!told_to_stop) {
        const int32_t came = senoscope_results_next(results, SLICE_MS);
        if (came < 0) return failed(senoscope_results_error(results));
        silent_s = came ? 0 : silent_s + SLICE_MS / 1e3;
        if (!came && timeout_s > 0 && silent_s >= timeout_s)
            return failed("no result came in time; see --timeout-s");
        if (!came) continue;
        print_result(results, json);
        if (++shown == count) break;
    }
    return 0;
}

int main(int argc, char **argv) {
    const char *endpoint = "tcp://127.0.0.1:5556", *topic = NULL, *server_key = NULL, *curve_keypair = NULL;
    long count = 0;
    double timeout_s = 0;
    bool json = false;
    const option table[] = {
        {"--endpoint", OPTION_TEXT, &endpoint, "of the service's results (default: tcp://127.0.0.1:5556)"},
        {"--topic", OPTION_TEXT, &topic, "only results whose topic begins with this (default: result/)"},
        {"--count", OPTION_COUNT, &count, "stop after N"},
        {"--timeout-s", OPTION_SECONDS, &timeout_s, "fail if none comes for so long"},
        {"--json", OPTION_FLAG, &json, "one JSON result per line"},
        {"--server-key", OPTION_TEXT, &server_key, "the service's .key file, or its text"},
        {"--curve-keypair", OPTION_TEXT, &curve_keypair, "this subscriber's .key_secret file"},
        {NULL, OPTION_FLAG, NULL, NULL}};
    if (options_read(PROGRAM, PROGRAM " [OPTION ...]", table, argc, argv))
        options_fail(PROGRAM, argv[0], "is no option");
    if (!server_key != !curve_keypair)
        options_fail(PROGRAM, "--server-key, --curve-keypair", "CURVE needs both");
    signal(SIGINT, stop);
    signal(SIGTERM, stop);
    senoscope_results *const results = senoscope_results_open(endpoint, topic, server_key, curve_keypair);
    if (!results) return failed(senoscope_results_error(NULL));
    if (!json) printf("%7s  %11s %8s  %s\n", "frame", "probability", "ms", "label, source");
    fflush(stdout);
    const int status = watch(results, count, timeout_s, json);
    if (senoscope_results_rejected(results))
        fprintf(stderr, PROGRAM ": %lld messages were no results\n",
                (long long)senoscope_results_rejected(results));
    senoscope_results_close(results);
    return status;
}

#endif
