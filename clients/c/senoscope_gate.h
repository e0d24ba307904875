/* The door of a CURVE server socket: ZeroMQ asks who may come in (RFC 27, ZAP), and a thread answers. */
#ifndef SENOSCOPE_GATE_H
#define SENOSCOPE_GATE_H

#include <errno.h>
#include <stdlib.h>

#include "senoscope_curve.h"

#ifndef ZMQ_ZAP_ENFORCE_DOMAIN
#define ZMQ_ZAP_ENFORCE_DOMAIN 93 /* libzmq knows it since 4.3.1, its header only among drafts */
#endif

enum { ZAP_PARTS = 7, ZAP_REQUEST = 1, ZAP_MECHANISM = 5, ZAP_CREDENTIALS = 6, ZAP_PART_BYTES = 256 };

typedef struct {
    void *questions;
    void *thread;
    char *allowed; /* a public key, or the file of those that may come in */
} curve_gate;

static inline bool send_part(void *socket, const void *data, size_t size, int flags) {
    while (zmq_send(socket, data, size, flags) < 0)
        if (zmq_errno() != EINTR) return false;
    return true;
}

/* Receive a question; its number of parts, or -1 at the end of the context. What is too long is cut. */
static inline int gate_receive(void *socket, char parts[ZAP_PARTS][ZAP_PART_BYTES], int sizes[ZAP_PARTS]) {
    char surplus[1];
    int count = 0, more = 1;
    size_t more_size = sizeof more;
    while (more) {
        const int size = count < ZAP_PARTS ? zmq_recv(socket, parts[count], ZAP_PART_BYTES, 0)
                                           : zmq_recv(socket, surplus, sizeof surplus, 0);
        if (size < 0 && zmq_errno() == EINTR) continue;
        if (size < 0) return -1;
        if (count < ZAP_PARTS) sizes[count] = size;
        count++;
        if (zmq_getsockopt(socket, ZMQ_RCVMORE, &more, &more_size) != 0) return -1;
    }
    return count;
}

static inline void gate_run(void *argument) {
    const curve_gate *const gate = argument;
    char parts[ZAP_PARTS][ZAP_PART_BYTES], key[CURVE_KEY_SIZE];
    int sizes[ZAP_PARTS], count;
    while ((count = gate_receive(gate->questions, parts, sizes)) >= 0) {
        const bool allowed = count == ZAP_PARTS && sizes[ZAP_MECHANISM] == 5 &&
                             memcmp(parts[ZAP_MECHANISM], "CURVE", 5) == 0 && sizes[ZAP_CREDENTIALS] == 32 &&
                             zmq_z85_encode(key, (const uint8_t *)parts[ZAP_CREDENTIALS], 32) != NULL &&
                             curve_is_allowed(gate->allowed, key);
        const bool whole = count > ZAP_REQUEST && sizes[ZAP_REQUEST] <= ZAP_PART_BYTES;
        send_part(gate->questions, "1.0", 3, ZMQ_SNDMORE);
        send_part(gate->questions, parts[ZAP_REQUEST], whole ? (size_t)sizes[ZAP_REQUEST] : 0, ZMQ_SNDMORE);
        send_part(gate->questions, allowed ? "200" : "400", 3, ZMQ_SNDMORE);
        send_part(gate->questions, "", 0, ZMQ_SNDMORE); /* status in words, user, metadata */
        send_part(gate->questions, "", 0, ZMQ_SNDMORE);
        send_part(gate->questions, "", 0, 0);
    }
    zmq_close(gate->questions);
}

/* Let in at `socket`, before it binds, whom `allowed` names; false if ZeroMQ or the memory fails. */
static inline bool gate_open(curve_gate *gate, void *context, void *socket, const char *allowed) {
    const int enforce = 1, linger = 0;
    gate->allowed = malloc(strlen(allowed) + 1);
    gate->questions = zmq_socket(context, ZMQ_REP);
    if (!gate->allowed || !gate->questions) return false;
    strcpy(gate->allowed, allowed);
    if (zmq_setsockopt(gate->questions, ZMQ_LINGER, &linger, sizeof linger) != 0 ||
        zmq_bind(gate->questions, "inproc://zeromq.zap.01") != 0 ||
        zmq_setsockopt(socket, ZMQ_ZAP_DOMAIN, "senoscope", 9) != 0 ||
        /* Without this option libzmq lets everybody in when nobody answers its questions. */
        zmq_setsockopt(socket, ZMQ_ZAP_ENFORCE_DOMAIN, &enforce, sizeof enforce) != 0)
        return false;
    gate->thread = zmq_threadstart(gate_run, gate);
    return gate->thread != NULL;
}

/* After zmq_ctx_shutdown, which ends the thread. */
static inline void gate_close(curve_gate *gate) {
    if (gate->thread)
        zmq_threadclose(gate->thread); /* which waits for it */
    else if (gate->questions)
        zmq_close(gate->questions);
    free(gate->allowed);
}

#endif
