/* Access control of a CURVE server socket: a thread replies to ZeroMQ's requests (RFC 27, ZAP). */
#ifndef SENOSCOPE_CURVE_SERVER_H
#define SENOSCOPE_CURVE_SERVER_H

#include <errno.h>
#include <stdlib.h>

#include "senoscope_curve.h"

#ifndef ZMQ_ZAP_ENFORCE_DOMAIN
#define ZMQ_ZAP_ENFORCE_DOMAIN 93 /* in libzmq since 4.3.1, in its header only as a draft */
#endif

enum { ZAP_PARTS = 7, ZAP_REQUEST = 1, ZAP_MECHANISM = 5, ZAP_CREDENTIALS = 6, ZAP_PART_BYTES = 256 };

typedef struct {
    void *requests;
    void *thread;
    char *allowed; /* the allowed public key, or a file of allowed public keys */
} curve_access;

static inline bool send_part(void *socket, const void *data, size_t size, int flags) {
    while (zmq_send(socket, data, size, flags) < 0)
        if (zmq_errno() != EINTR) return false;
    return true;
}

/* Receive a request; return its number of parts, or -1 at the end of the context. Long parts are cut. */
static inline int curve_access_receive(void *socket, char parts[ZAP_PARTS][ZAP_PART_BYTES],
                                       int sizes[ZAP_PARTS]) {
    char discarded[1];
    int count = 0, more = 1;
    size_t more_size = sizeof more;
    while (more) {
        const int size = count < ZAP_PARTS ? zmq_recv(socket, parts[count], ZAP_PART_BYTES, 0)
                                           : zmq_recv(socket, discarded, sizeof discarded, 0);
        if (size < 0 && zmq_errno() == EINTR) continue;
        if (size < 0) return -1;
        if (count < ZAP_PARTS) sizes[count] = size;
        count++;
        if (zmq_getsockopt(socket, ZMQ_RCVMORE, &more, &more_size) != 0) return -1;
    }
    return count;
}

static inline void curve_access_run(void *argument) {
    const curve_access *const access = argument;
    char parts[ZAP_PARTS][ZAP_PART_BYTES], key[CURVE_KEY_SIZE];
    int sizes[ZAP_PARTS], count;
    while ((count = curve_access_receive(access->requests, parts, sizes)) >= 0) {
        const bool allowed = count == ZAP_PARTS && sizes[ZAP_MECHANISM] == 5 &&
                             memcmp(parts[ZAP_MECHANISM], "CURVE", 5) == 0 && sizes[ZAP_CREDENTIALS] == 32 &&
                             zmq_z85_encode(key, (const uint8_t *)parts[ZAP_CREDENTIALS], 32) != NULL &&
                             curve_is_allowed(access->allowed, key);
        const bool whole = count > ZAP_REQUEST && sizes[ZAP_REQUEST] <= ZAP_PART_BYTES;
        send_part(access->requests, "1.0", 3, ZMQ_SNDMORE);
        send_part(access->requests, parts[ZAP_REQUEST], whole ? (size_t)sizes[ZAP_REQUEST] : 0, ZMQ_SNDMORE);
        send_part(access->requests, allowed ? "200" : "400", 3, ZMQ_SNDMORE);
        send_part(access->requests, "", 0, ZMQ_SNDMORE); /* status text, user, metadata */
        send_part(access->requests, "", 0, ZMQ_SNDMORE);
        send_part(access->requests, "", 0, 0);
    }
    zmq_close(access->requests);
}

/* Accept only allowed clients at `socket`, before it binds; false if ZeroMQ or the memory fails. */
static inline bool curve_access_open(curve_access *access, void *context, void *socket, const char *allowed) {
    const int enforce = 1, linger = 0;
    access->allowed = malloc(strlen(allowed) + 1);
    access->requests = zmq_socket(context, ZMQ_REP);
    if (!access->allowed || !access->requests) return false;
    strcpy(access->allowed, allowed);
    if (zmq_setsockopt(access->requests, ZMQ_LINGER, &linger, sizeof linger) != 0 ||
        zmq_bind(access->requests, "inproc://zeromq.zap.01") != 0 ||
        zmq_setsockopt(socket, ZMQ_ZAP_DOMAIN, "senoscope", 9) != 0 ||
        /* Without this option libzmq accepts all clients if there are no replies to its requests. */
        zmq_setsockopt(socket, ZMQ_ZAP_ENFORCE_DOMAIN, &enforce, sizeof enforce) != 0)
        return false;
    access->thread = zmq_threadstart(curve_access_run, access);
    return access->thread != NULL;
}

/* Free all resources; call it after zmq_ctx_shutdown, which ends the thread. */
static inline void curve_access_close(curve_access *access) {
    if (access->thread)
        zmq_threadclose(access->thread); /* waits for the end of the thread */
    else if (access->requests)
        zmq_close(access->requests);
    free(access->allowed);
}

#endif
