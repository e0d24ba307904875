/* Publishing the frames of a microscope to Senoscope: format nlo-fov 1.0, see docs/reference/wire-format.md.
 *
 * All text is UTF-8. Where NULL is allowed, an empty text has the same meaning. A publisher may be used by
 * any thread, but only by one at a time. If a function returns a negative number, nothing was sent, and
 * senoscope_last_error returns the reason.
 */
#ifndef SENOSCOPE_PUBLISH_H
#define SENOSCOPE_PUBLISH_H

#include "senoscope_api.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { SENOSCOPE_UINT8 = 1, SENOSCOPE_UINT16 = 2, SENOSCOPE_FLOAT32 = 4 };

typedef struct senoscope_publisher senoscope_publisher;

/* A series; members that are 0 or NULL are not sent, or have the default that is given here. */
typedef struct {
    const char *series_id;  /* the operator's name for it; required */
    const char *series_uid; /* a UUID; default: a new one */
    const char *channels;   /* of each frame, in order; default: "SRS,TPEF,Transmission" */
    double pixel_size_um;   /* edge of a pixel; default: 0.35 */
    int64_t planned_frames; /* number of frames of the complete series */
    int64_t mosaic_rows;    /* the grid of stage positions */
    int64_t mosaic_columns;
    double pump_wavelength_nm;
    double stokes_wavelength_nm;
    double wavenumber_cm1;
    const char *user_data; /* any JSON object */
} senoscope_series;

/* A frame; members that are 0 or NULL are not sent. */
typedef struct {
    const void *pixels; /* channels x height x width, the columns contiguous; required */
    int32_t dtype;      /* SENOSCOPE_UINT8, _UINT16 or _FLOAT32; required */
    int32_t channels;
    int32_t height;
    int32_t width;
    const double *position_um; /* x, y, z of the stage */
    const int64_t *index;      /* p, t, z: stage position, time point, slice; each from 0 */
    double exposure_ms;
    int64_t seconds; /* time of acquisition since 1970-01-01T00:00:00Z; 0: now */
    int64_t nanoseconds;
    const char *user_data; /* any JSON object */
} senoscope_frame;

/* Bind a frame stream.
 *
 * endpoint       such as "tcp://127.0.0.1:5555", or "tcp://0.0.0.0:5555" for other machines; port * chooses a
 *                free one, see senoscope_endpoint
 * instrument     the microscope's name, 1 to 64 characters without slash or blank
 * curve_keypair  the .key_secret file of this publisher, or its secret key; encrypts the frames; NULL: plain
 * allowed_keys   the subscribers to accept: a public key, or a file of public keys, read at each handshake;
 *                NULL: all subscribers that have the public key of this publisher
 *
 * Returns NULL on failure; senoscope_last_error(NULL) then returns the reason.
 */
SENOSCOPE_API senoscope_publisher *senoscope_open(const char *endpoint, const char *instrument,
                                                  const char *curve_keypair, const char *allowed_keys);

/* Return the last error of a publisher or, with NULL, of the last senoscope_open. */
SENOSCOPE_API const char *senoscope_last_error(const senoscope_publisher *publisher);

/* Return the endpoint that subscribers connect to. */
SENOSCOPE_API const char *senoscope_endpoint(const senoscope_publisher *publisher);

/* Wait for a subscriber to frames: 1 if there is one, 0 if there is none within the time (-1: no limit). */
SENOSCOPE_API int32_t senoscope_wait_for_subscriber(senoscope_publisher *publisher, int32_t timeout_ms);

/* Open a series and send its start message; returns 0. The second form has more options. */
SENOSCOPE_API int32_t senoscope_start_series(senoscope_publisher *publisher, const char *series_id,
                                             int64_t planned_frames);
SENOSCOPE_API int32_t senoscope_start_series_with(senoscope_publisher *publisher,
                                                  const senoscope_series *series);

/* Send a frame; returns its number, from 0. The pixels are copied, so that the caller may reuse them at once.
 *
 * pixels is channels x height x width, the columns contiguous, in raw detector units. Pass NaN for x_um, y_um
 * and z_um if the stage position is not known. The second form has more options.
 */
SENOSCOPE_API int64_t senoscope_publish_frame(senoscope_publisher *publisher, const uint16_t *pixels,
                                              int32_t channels, int32_t height, int32_t width, double x_um,
                                              double y_um, double z_um);
SENOSCOPE_API int64_t senoscope_publish_frame_with(senoscope_publisher *publisher,
                                                   const senoscope_frame *frame);

/* Send a frame without copying its pixels, which must not change until `release(pixels, hint)` is called.
 *
 * It is called exactly once, also on failure, possibly before this function returns, and possibly in another
 * thread.
 */
SENOSCOPE_API int64_t senoscope_publish_frame_nocopy(senoscope_publisher *publisher,
                                                     const senoscope_frame *frame,
                                                     void (*release)(void *pixels, void *hint), void *hint);

/* Send a heartbeat, which reports that the series is still open. Functions that send frames also send
 * heartbeats: call it once a second while a series is open and no frames are sent. */
SENOSCOPE_API int32_t senoscope_heartbeat(senoscope_publisher *publisher);

/* Close the series; returns its number of frames. `reason` is any text; NULL: "completed". */
SENOSCOPE_API int64_t senoscope_end_series(senoscope_publisher *publisher, const char *reason);

/* End an open series as "aborted", wait up to 2 s until all messages are sent, and free all resources. */
SENOSCOPE_API void senoscope_close(senoscope_publisher *publisher);

#ifdef __cplusplus
}
#endif

#endif
