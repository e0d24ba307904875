/* Receiving Senoscope's results over ZeroMQ, as JSON, with access to any value by name.
 *
 * All text is UTF-8. Where NULL is allowed, an empty text has the same meaning. A subscriber may be used by
 * any thread, but only by one at a time. If a function returns a negative number, senoscope_results_error
 * returns the reason.
 */
#ifndef SENOSCOPE_SUBSCRIBE_H
#define SENOSCOPE_SUBSCRIBE_H

#include "senoscope_api.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct senoscope_results senoscope_results;

/* Subscribe to results. The subscriber connects, and reconnects after a lost connection, by itself: it is no
 * error if the service is not running yet.
 *
 * endpoint       of the service, such as "tcp://127.0.0.1:5556"
 * topic          receive only results whose topic begins with this text: "result/stream/<instrument>",
 *                "result/upload"; NULL: all
 * server_key     the service's public CURVE key, or its file; NULL: not encrypted
 * curve_keypair  the .key_secret file of this subscriber, or its secret key; required with server_key
 *
 * Returns NULL on failure; senoscope_results_error(NULL) then returns the reason.
 */
SENOSCOPE_API senoscope_results *senoscope_results_open(const char *endpoint, const char *topic,
                                                        const char *server_key, const char *curve_keypair);

/* Return the last error of a subscriber or, with NULL, of the last senoscope_results_open. */
SENOSCOPE_API const char *senoscope_results_error(const senoscope_results *results);

/* Wait for the next result: 1 if there is one, 0 if there is none within the time (-1: no limit). After
 * SENOSCOPE_REFUSED the subscriber does not reconnect: close it. */
SENOSCOPE_API int32_t senoscope_results_next(senoscope_results *results, int32_t timeout_ms);

/* Return the last result as JSON, or a value in it, valid until the next call. Paths have dots: "label",
 * "probability", "source.frame", "uncertainty.entropy". */
SENOSCOPE_API const char *senoscope_results_json(const senoscope_results *results);
SENOSCOPE_API const char *senoscope_results_text(senoscope_results *results, const char *path); /* or NULL */
SENOSCOPE_API double senoscope_results_number(senoscope_results *results, const char *path);    /* or NaN */

/* Return the number of messages that were skipped because they are not valid results. */
SENOSCOPE_API int64_t senoscope_results_rejected(const senoscope_results *results);

/* Return how often the connection was opened again because the received data were not ZeroMQ's protocol or
 * too large; results that were published meanwhile are not received. */
SENOSCOPE_API int64_t senoscope_results_reconnects(const senoscope_results *results);

SENOSCOPE_API void senoscope_results_close(senoscope_results *results);

#ifdef __cplusplus
}
#endif

#endif
