/* Receiving Senoscope's results over ZeroMQ: as JSON, and any value in it by name.
 *
 * All text is UTF-8. Where NULL is allowed, an empty text is the same. A subscriber may be used by any
 * thread, but by one at a time. Where a function returns a negative number, senoscope_results_error tells in
 * words what is wrong.
 */
#ifndef SENOSCOPE_SUBSCRIBE_H
#define SENOSCOPE_SUBSCRIBE_H

#include <stdint.h>

#ifndef SENOSCOPE_API
#if defined(_WIN32) && defined(SENOSCOPE_LIBRARY)
#define SENOSCOPE_API __declspec(dllexport)
#else
#define SENOSCOPE_API
#endif
#endif

#ifdef __cplusplus
extern "C" {
#endif

#ifndef SENOSCOPE_ERRORS
#define SENOSCOPE_ERRORS
enum {
    SENOSCOPE_BAD_ARGUMENT = -1, /* something that the format cannot carry, or a key that is none */
    SENOSCOPE_WRONG_STATE = -2,  /* no series is open, or one is open already */
    SENOSCOPE_NETWORK = -3,      /* ZeroMQ failed, or there is no memory */
    SENOSCOPE_REFUSED = -4       /* the other side does not let this one in */
};
#endif

typedef struct senoscope_results senoscope_results;

/* Subscribe to results. The subscriber connects, and connects again after any loss, by itself: a service that
 * is not there yet is no error.
 *
 * endpoint       of the service, such as "tcp://127.0.0.1:5556"
 * topic          only results whose topic begins with this: "result/stream/<instrument>", "result/upload";
 *                NULL: all
 * server_key     the service's public CURVE key, or its file; NULL: plain
 * curve_keypair  this subscriber's .key_secret file, or its secret key; needed with server_key
 *
 * Returns NULL if it cannot; senoscope_results_error(NULL) tells why.
 */
SENOSCOPE_API senoscope_results *senoscope_results_open(const char *endpoint, const char *topic,
                                                        const char *server_key, const char *curve_keypair);

/* What was wrong last, of a subscriber or, with NULL, of the last senoscope_results_open. */
SENOSCOPE_API const char *senoscope_results_error(const senoscope_results *results);

/* Wait for the next result: 1 if there is one, 0 if none came within the time (-1: no limit). After
 * SENOSCOPE_REFUSED ZeroMQ does not try again: close this one. */
SENOSCOPE_API int32_t senoscope_results_next(senoscope_results *results, int32_t timeout_ms);

/* Of the result that came last; what is returned is valid until the next call. Paths have dots: "label",
 * "probability", "source.frame", "uncertainty.entropy". */
SENOSCOPE_API const char *senoscope_results_json(const senoscope_results *results);
SENOSCOPE_API const char *senoscope_results_text(senoscope_results *results, const char *path); /* or NULL */
SENOSCOPE_API double senoscope_results_number(senoscope_results *results, const char *path);    /* or NaN */

/* How many messages were no results, and were skipped. */
SENOSCOPE_API int64_t senoscope_results_rejected(const senoscope_results *results);

/* How often the connection was made anew because what came was not ZeroMQ's protocol, or too large; results
 * that were sent meanwhile are lost to this subscriber. */
SENOSCOPE_API int64_t senoscope_results_reconnects(const senoscope_results *results);

SENOSCOPE_API void senoscope_results_close(senoscope_results *results);

#ifdef __cplusplus
}
#endif

#endif
