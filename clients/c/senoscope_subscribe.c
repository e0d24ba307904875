/* The subscriber to Senoscope's results in C: the functions of senoscope_subscribe.h, and a program.
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

enum {
    HIGH_WATER_MARK = 1000,
    MAX_RESULT_BYTES = 16 * 1024 * 1024, /* of one part; a result with Grad-CAM map has about 100 kB */
    SLICE_MS = 200,
    MAX_ABORTED_HANDSHAKES = 10, /* in succession; ZeroMQ tries again after each */
    HANDSHAKE_MS = 5000,
    RETRY_MS = 500, /* ZeroMQ reports a reconnection immediately after the loss, or does not reconnect */
    EVENTS = ZMQ_EVENT_CONNECTED | ZMQ_EVENT_CONNECT_RETRIED | ZMQ_EVENT_DISCONNECTED |
             ZMQ_EVENT_HANDSHAKE_FAILED_AUTH | ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL |
             ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL | ZMQ_EVENT_HANDSHAKE_SUCCEEDED
};

static const int64_t NEVER = INT64_MAX;

struct senoscope_results {
    void *context, *socket, *monitor;
    char *json;      /* the last result, terminated by NUL */
    char *text;      /* the last value that was read from it; never longer */
    size_t size;     /* of the result */
    size_t capacity; /* of either */
    int64_t rejected, reconnects;
    int aborted_handshakes;
    void *clock;
    int64_t handshake_deadline_ms, retry_deadline_ms; /* when the socket must be replaced, or NEVER */
    bool encrypted;
    char server_key[CURVE_KEY_SIZE], public_key[CURVE_KEY_SIZE], secret_key[CURVE_KEY_SIZE];
    char endpoint[256], topic[256];
    char error[512];
};

static char open_error[512];

static int32_t fail(senoscope_results *results, int32_t code, const char *what, const char *reason) {
    snprintf(results->error, sizeof results->error, "%s%s", what, reason);
    return code;
}

static bool set_int(void *socket, int name, int value) {
    return zmq_setsockopt(socket, name, &value, sizeof value) == 0;
}

static bool set_key(void *socket, int name, const char key[CURVE_KEY_SIZE]) {
    return zmq_setsockopt(socket, name, key, CURVE_KEY_SIZE) == 0;
}

static int64_t now_ms(const senoscope_results *results) {
    return (int64_t)(zmq_stopwatch_intermediate(results->clock) / 1000);
}

static int32_t load_keys(senoscope_results *results, const char *server_key, const char *curve_keypair) {
    if (!zmq_has("curve"))
        return fail(results, SENOSCOPE_BAD_ARGUMENT, "this libzmq was built without CURVE", "");
    if (!curve_load_public(server_key, results->server_key, results->error, sizeof results->error) ||
        !curve_load_pair(curve_keypair, results->public_key, results->secret_key, results->error,
                         sizeof results->error))
        return SENOSCOPE_BAD_ARGUMENT;
    results->encrypted = true;
    return 0;
}

static void close_sockets(senoscope_results *results) {
    if (results->socket) zmq_close(results->socket);
    if (results->monitor) zmq_close(results->monitor);
    results->socket = results->monitor = NULL;
}

/* Open the socket and its monitor, and connect. */
static int32_t open_sockets(senoscope_results *results) {
    const int64_t most = MAX_RESULT_BYTES;
    char monitored[64]; /* a new name, because that of a closed monitor is not free immediately */
    snprintf(monitored, sizeof monitored, "inproc://senoscope-results-%lld", (long long)results->reconnects);
    results->handshake_deadline_ms = results->retry_deadline_ms = NEVER;
    void *const socket = results->socket = zmq_socket(results->context, ZMQ_SUB);
    void *const monitor = results->monitor = zmq_socket(results->context, ZMQ_PAIR);
    if (!socket || !monitor || !set_int(socket, ZMQ_RCVHWM, HIGH_WATER_MARK) ||
        !set_int(socket, ZMQ_LINGER, 0) || !set_int(monitor, ZMQ_LINGER, 0) ||
        !set_int(socket, ZMQ_HANDSHAKE_IVL, HANDSHAKE_MS) ||
        /* Heartbeats detect a lost connection that was not closed, as when the machine is switched off. */
        !set_int(socket, ZMQ_HEARTBEAT_IVL, 2000) || !set_int(socket, ZMQ_HEARTBEAT_TIMEOUT, 6000) ||
        zmq_setsockopt(socket, ZMQ_MAXMSGSIZE, &most, sizeof most) != 0 ||
        zmq_setsockopt(socket, ZMQ_SUBSCRIBE, results->topic, strlen(results->topic)) != 0 ||
        zmq_socket_monitor(socket, monitored, EVENTS) != 0 || zmq_connect(monitor, monitored) != 0)
        return fail(results, SENOSCOPE_NETWORK, "ZeroMQ cannot start: ", zmq_strerror(zmq_errno()));
    if (results->encrypted && (!set_key(socket, ZMQ_CURVE_SERVERKEY, results->server_key) ||
                               !set_key(socket, ZMQ_CURVE_PUBLICKEY, results->public_key) ||
                               !set_key(socket, ZMQ_CURVE_SECRETKEY, results->secret_key)))
        return fail(results, SENOSCOPE_NETWORK, "CURVE cannot be set up: ", zmq_strerror(zmq_errno()));
    if (zmq_connect(socket, results->endpoint) != 0) {
        snprintf(results->error, sizeof results->error, "results cannot be received from %s: %s",
                 results->endpoint, zmq_strerror(zmq_errno()));
        return SENOSCOPE_NETWORK;
    }
    return 0;
}

static int32_t connect_socket(senoscope_results *results) {
    const int32_t code = open_sockets(results);
    if (code < 0) close_sockets(results); /* the next call tries again */
    return code;
}

static int32_t subscribe(senoscope_results *results, const char *endpoint, const char *topic,
                         const char *server_key, const char *curve_keypair) {
    int32_t code = 0;
    if (!endpoint) return fail(results, SENOSCOPE_BAD_ARGUMENT, "the endpoint is missing", "");
    if (!text_or_null(topic)) topic = "result/";
    if (strlen(endpoint) >= sizeof results->endpoint || strlen(topic) >= sizeof results->topic)
        return fail(results, SENOSCOPE_BAD_ARGUMENT, "the endpoint or the topic is too long", "");
    if (!server_key != !curve_keypair)
        return fail(results, SENOSCOPE_BAD_ARGUMENT,
                    "CURVE needs both the service's public key and a key pair", "");
    snprintf(results->endpoint, sizeof results->endpoint, "%s", endpoint);
    snprintf(results->topic, sizeof results->topic, "%s", topic);
    results->clock = zmq_stopwatch_start();
    results->context = zmq_ctx_new();
    if (!results->context || !results->clock)
        return fail(results, SENOSCOPE_NETWORK, "ZeroMQ cannot start: ", zmq_strerror(zmq_errno()));
    if (server_key && (code = load_keys(results, server_key, curve_keypair)) < 0) return code;
    return connect_socket(results);
}

senoscope_results *senoscope_results_open(const char *endpoint, const char *topic, const char *server_key,
                                          const char *curve_keypair) {
    senoscope_results *const results = calloc(1, sizeof *results);
    if (!results) {
        snprintf(open_error, sizeof open_error, "not enough memory");
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

static bool reserve(senoscope_results *results, size_t size) {
    if (size < results->capacity) return true;
    const size_t capacity = 2 * size + 4096;
    char *const json = realloc(results->json, capacity);
    if (json) results->json = json;
    char *const text = realloc(results->text, capacity);
    if (text) results->text = text;
    if (json && text) results->capacity = capacity;
    return json && text;
}

static json_span last(const senoscope_results *results) {
    return (json_span){results->json, results->json + results->size};
}

/* Whether the received JSON is a result: an object with a label and a probability. */
static bool is_result(senoscope_results *results) {
    json_span label;
    if (!json_is_object(last(results)) || !json_find(last(results), "label", &label) || *label.at != '"')
        return false;
    const double probability = senoscope_results_number(results, "probability");
    return probability >= 0 && probability <= 1; /* false for NaN */
}

/* Receive all parts of a message: 1 if it is a result, 0 otherwise. */
static int32_t receive_message(senoscope_results *results) {
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
        if (++parts == 2 && (kept = reserve(results, zmq_msg_size(&part)))) {
            results->size = zmq_msg_size(&part);
            memcpy(results->json, zmq_msg_data(&part), results->size);
            results->json[results->size] = '\0';
        }
        more = zmq_msg_more(&part);
    }
    zmq_msg_close(&part);
    if (!kept) return fail(results, SENOSCOPE_NETWORK, "not enough memory for a result", "");
    if (parts == 2 && is_result(results)) return 1;
    results->size = 0;
    results->rejected++;
    return 0;
}

/* Whether a handshake failed because only one side uses CURVE, or the keys do not match. */
static bool is_curve_error(uint32_t protocol_error) {
    switch (protocol_error) {
    case ZMQ_PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH:
    case ZMQ_PROTOCOL_ERROR_ZMTP_CRYPTOGRAPHIC:
    case ZMQ_PROTOCOL_ERROR_ZMTP_KEY_EXCHANGE:
    case ZMQ_PROTOCOL_ERROR_ZMTP_MALFORMED_COMMAND_HELLO:
    case ZMQ_PROTOCOL_ERROR_ZMTP_MALFORMED_COMMAND_WELCOME:
    case ZMQ_PROTOCOL_ERROR_ZMTP_MALFORMED_COMMAND_INITIATE: return true;
    default: return false;
    }
}

/* Handle one event of the monitor; return SENOSCOPE_REFUSED, or 0.
 *
 * A service that refuses a client may close the connection before its greeting is read: then ZeroMQ reports
 * no reason, and repeated aborted handshakes are the only sign. ZeroMQ reconnects by itself after a lost
 * connection, but not after bytes that are not a ZeroMQ message or a part that is too large: then it does not
 * report CONNECT_RETRIED. */
static int32_t handle_event(senoscope_results *results, uint16_t kind, uint32_t value) {
    switch (kind) {
    case ZMQ_EVENT_CONNECTED: /* bytes before a greeting look like an old peer, and ZeroMQ waits forever */
        results->handshake_deadline_ms = now_ms(results) + HANDSHAKE_MS + RETRY_MS;
        results->retry_deadline_ms = NEVER;
        return 0;
    case ZMQ_EVENT_HANDSHAKE_SUCCEEDED:
        results->aborted_handshakes = 0;
        results->handshake_deadline_ms = NEVER;
        return 0;
    case ZMQ_EVENT_DISCONNECTED:
        results->handshake_deadline_ms = NEVER;
        results->retry_deadline_ms = now_ms(results) + RETRY_MS;
        return 0;
    case ZMQ_EVENT_CONNECT_RETRIED:
        results->handshake_deadline_ms = results->retry_deadline_ms = NEVER;
        return 0;
    case ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL:
        if (++results->aborted_handshakes < MAX_ABORTED_HANDSHAKES) return 0;
        break;
    case ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL:
        if (is_curve_error(value)) break;
        results->retry_deadline_ms = now_ms(results) + RETRY_MS;
        return 0;
    default: break;
    }
    return fail(
        results, SENOSCOPE_REFUSED, "the service refuses to send results: ",
        kind == ZMQ_EVENT_HANDSHAKE_FAILED_AUTH
            ? "this public key is not allowed; copy the .key file into the service's folder of allowed keys"
            : "only one side uses CURVE, or the server key is not the public key of the service");
}

/* Handle the events of the monitor, and replace a socket that will not reconnect; return an error, or 0. */
static int32_t check_connection(senoscope_results *results) {
    unsigned char event[6] = {0};
    char address[256];
    if (!results->socket) return connect_socket(results);
    while (zmq_recv(results->monitor, event, sizeof event, ZMQ_DONTWAIT) >= 0) {
        uint16_t kind;
        uint32_t value;
        zmq_recv(results->monitor, address, sizeof address, 0);
        memcpy(&kind, event, sizeof kind);
        memcpy(&value, event + sizeof kind, sizeof value);
        const int32_t code = handle_event(results, kind, value);
        if (code < 0) return code;
    }
    if (now_ms(results) < results->handshake_deadline_ms && now_ms(results) < results->retry_deadline_ms)
        return 0;
    results->reconnects++;
    close_sockets(results);
    return connect_socket(results);
}

int32_t senoscope_results_next(senoscope_results *results, int32_t timeout_ms) {
    const int64_t until_ms = now_ms(results) + timeout_ms;
    for (;;) {
        int32_t code = check_connection(results);
        if (code < 0) return code;
        const int64_t left_ms = timeout_ms < 0 ? SLICE_MS : until_ms - now_ms(results);
        zmq_pollitem_t item = {results->socket, 0, ZMQ_POLLIN, 0};
        if (zmq_poll(&item, 1, left_ms < 0 ? 0 : left_ms < SLICE_MS ? (long)left_ms : SLICE_MS) > 0) {
            results->handshake_deadline_ms = NEVER; /* peers of old protocol versions have no handshake */
            if ((code = receive_message(results)) != 0) return code;
        }
        if (timeout_ms >= 0 && left_ms <= 0) return 0;
    }
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

int64_t senoscope_results_reconnects(const senoscope_results *results) { return results->reconnects; }

void senoscope_results_close(senoscope_results *results) {
    if (!results) return;
    close_sockets(results);
    if (results->clock) zmq_stopwatch_stop(results->clock);
    while (results->context && zmq_ctx_term(results->context) != 0 && zmq_errno() == EINTR) {
    }
    free(results->json);
    free(results->text);
    free(results);
}

#ifndef SENOSCOPE_LIBRARY

/* The program senoscope_subscribe: prints results as they are made, a line each. */

#define PROGRAM "senoscope_subscribe"
#include "senoscope_options.h"

/* Print an untrusted text without control characters, which could move the cursor of the terminal. */
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
        /* Line ends between the values are replaced by blanks; strings in JSON contain none. */
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

static int watch(senoscope_results *results, long count, double timeout_s, bool json) {
    long shown = 0;
    double idle_s = 0;
    int64_t reconnects = 0;
    while (!stop_requested) {
        const int32_t received = senoscope_results_next(results, SLICE_MS);
        if (received < 0) return failed(senoscope_results_error(results));
        if (senoscope_results_reconnects(results) > reconnects) {
            reconnects = senoscope_results_reconnects(results);
            fprintf(stderr, PROGRAM
                    ": received data that is not ZeroMQ's protocol, or too large; connecting again\n");
        }
        idle_s = received ? 0 : idle_s + SLICE_MS / 1e3;
        if (!received && timeout_s > 0 && idle_s >= timeout_s)
            return failed("no result was received in time; see --timeout-s");
        if (!received) continue;
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
        {"--topic", OPTION_TEXT, &topic,
         "receive only results whose topic begins with this (default: result/)"},
        {"--count", OPTION_COUNT, &count, "stop after N results"},
        {"--timeout-s", OPTION_SECONDS, &timeout_s, "fail if there is no result for so many seconds"},
        {"--json", OPTION_FLAG, &json, "one JSON result per line"},
        {"--server-key", OPTION_TEXT, &server_key, "the service's .key file, or its public key"},
        {"--curve-keypair", OPTION_TEXT, &curve_keypair, "the .key_secret file of this subscriber"},
        {NULL, OPTION_FLAG, NULL, NULL}};
    if (options_read(PROGRAM " [OPTION ...]", table, argc, argv))
        options_fail(argv[0], "unexpected argument");
    if (!server_key != !curve_keypair)
        options_fail("--server-key, --curve-keypair", "CURVE needs both");
    stop_on_signals();
    senoscope_results *const results = senoscope_results_open(endpoint, topic, server_key, curve_keypair);
    if (!results) return failed(senoscope_results_error(NULL));
    if (!json) printf("%7s  %11s %8s  %s\n", "frame", "probability", "ms", "label, source");
    fflush(stdout);
    const int status = watch(results, count, timeout_s, json);
    if (senoscope_results_rejected(results))
        fprintf(stderr, PROGRAM ": %lld messages were not results\n",
                (long long)senoscope_results_rejected(results));
    senoscope_results_close(results);
    return status;
}

#endif
