/* Sending the frames of a microscope to Senoscope: format nlo-fov 1.0, see docs/reference/wire-format.md.
 *
 * All text is UTF-8. Where NULL is allowed, an empty text is the same. A publisher may be used by any thread,
 * but by one at a time. Where a function returns a negative number, senoscope_last_error tells in words what
 * is wrong; nothing was sent then.
 */
#ifndef SENOSCOPE_PUBLISH_H
#define SENOSCOPE_PUBLISH_H

#include <stdint.h>

#if defined(_WIN32) && defined(SENOSCOPE_LIBRARY)
#define SENOSCOPE_API __declspec(dllexport)
#else
#define SENOSCOPE_API
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

enum { SENOSCOPE_UINT8 = 1, SENOSCOPE_UINT16 = 2, SENOSCOPE_FLOAT32 = 4 };

typedef struct senoscope_publisher senoscope_publisher;

/* A series; what is 0 or NULL is not told, or has the default that is named here. */
typedef struct {
    const char *series_id;  /* the operator's name for it; needed */
    const char *series_uid; /* a UUID; default: a new one */
    const char *channels;   /* of each frame, in order; default: "SRS,TPEF,Transmission" */
    double pixel_size_um;   /* edge of a pixel; default: 0.35 */
    int64_t planned_frames; /* how many there will be */
    int64_t mosaic_rows;    /* the grid of stage positions */
    int64_t mosaic_columns;
    double pump_wavelength_nm;
    double stokes_wavelength_nm;
    double wavenumber_cm1;
    const char *user_data; /* a JSON object of your own */
} senoscope_series;

/* A frame; what is 0 or NULL is not told. */
typedef struct {
    const void *pixels; /* channels x height x width, the columns next to each other; needed */
    int32_t dtype;      /* SENOSCOPE_UINT8, _UINT16 or _FLOAT32; needed */
    int32_t channels;
    int32_t height;
    int32_t width;
    const double *position_um; /* x, y, z of the stage */
    const int64_t *index;      /* p, t, z: stage position, time point, slice; each from 0 */
    double exposure_ms;
    int64_t seconds; /* since 1970-01-01T00:00:00Z, when it was acquired; 0: now */
    int64_t nanoseconds;
    const char *user_data; /* a JSON object of your own */
} senoscope_frame;

/* Bind a frame stream.
 *
 * endpoint       such as "tcp://127.0.0.1:5555", or "tcp://0.0.0.0:5555" for other machines; port * takes a
 *                free one, which senoscope_endpoint tells
 * instrument     the microscope's name, 1 to 64 characters without slash or blank
 * curve_keypair  encrypts the frames: this publisher's .key_secret file, or its secret key; NULL: plain
 * allowed_keys   lets these subscribers in and no others: a public key, or a file with one or several, read
 *                at each handshake; NULL: whoever knows this publisher's public key
 *
 * Returns NULL if it cannot; senoscope_last_error(NULL) tells why.
 */
SENOSCOPE_API senoscope_publisher *senoscope_open(const char *endpoint, const char *instrument,
                                                  const char *curve_keypair, const char *allowed_keys);

/* What was wrong last, of a publisher or, with NULL, of the last senoscope_open. */
SENOSCOPE_API const char *senoscope_last_error(const senoscope_publisher *publisher);

/* Where subscribers connect to. */
SENOSCOPE_API const char *senoscope_endpoint(const senoscope_publisher *publisher);

/* 1 as soon as somebody is subscribed to frames, 0 if nobody is within the time; -1: no limit. */
SENOSCOPE_API int32_t senoscope_wait_for_subscriber(senoscope_publisher *publisher, int32_t timeout_ms);

/* Open a series and tell its subscribers; 0 if done. The second form tells more. */
SENOSCOPE_API int32_t senoscope_start_series(senoscope_publisher *publisher, const char *series_id,
                                             int64_t planned_frames);
SENOSCOPE_API int32_t senoscope_start_series_with(senoscope_publisher *publisher,
                                                  const senoscope_series *series);

/* Send a frame; returns its number, from 0. The pixels are copied: the caller may use them again at once.
 *
 * pixels is channels x height x width, the columns next to each other, in raw detector units. Pass NaN for
 * all of x_um, y_um, z_um where the stage is not known. The second form tells more.
 */
SENOSCOPE_API int64_t senoscope_publish_frame(senoscope_publisher *publisher, const uint16_t *pixels,
                                              int32_t channels, int32_t height, int32_t width, double x_um,
                                              double y_um, double z_um);
SENOSCOPE_API int64_t senoscope_publish_frame_with(senoscope_publisher *publisher,
                                                   const senoscope_frame *frame);

/* Send a frame without copying its pixels, which must not change until `release(pixels, hint)` is called.
 *
 * That happens once, whatever is returned, perhaps before this function returns, and perhaps in another
 * thread.
 */
SENOSCOPE_API int64_t senoscope_publish_frame_nocopy(senoscope_publisher *publisher,
                                                     const senoscope_frame *frame,
                                                     void (*release)(void *pixels, void *hint), void *hint);

/* Tell subscribers that the series is still open. Frames see to it by themselves: call it once a second while
 * a series is open and there are none. */
SENOSCOPE_API int32_t senoscope_heartbeat(senoscope_publisher *publisher);

/* Close the series; returns how many frames it had. `reason` is such as "completed", or NULL for that. */
SENOSCOPE_API int64_t senoscope_end_series(senoscope_publisher *publisher, const char *reason);

/* End an open series as "aborted", let the last messages out for up to 2 s, and free everything. */
SENOSCOPE_API void senoscope_close(senoscope_publisher *publisher);

#ifdef __cplusplus
}
#endif

#endif
