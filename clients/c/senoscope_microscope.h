/* The program senoscope_publish: a simulated microscope that sends a test pattern or raw files.
 *
 * senoscope_publish.c includes this file at its end, and defines the functions that it uses.
 */
#define PROGRAM "senoscope_publish"
#include "senoscope_options.h"

enum { PATTERNS = 8, ROWS = 6, COLUMNS = 8, DISCS = 12, SLICE_MS = 100 };

typedef struct {
    unsigned char *pixels;
    size_t frame_bytes;
    long frames;
} source;

/* Draw discs on noise, every other frame bright; they do not resemble cells. */
static void draw_pattern(uint16_t *out, int pattern, const senoscope_frame *shape) {
    uint32_t state = 2463534242u + (uint32_t)pattern;
    const long height = shape->height, width = shape->width;
    const int base = pattern % 2 ? 60 : 600;
    long disc[DISCS][2];
    for (int k = 0; k < DISCS; k++)
        for (int axis = 0; axis < 2; axis++) {
            state = state * 1664525u + 1013904223u;
            disc[k][axis] = (long)((state >> 8) % (uint32_t)(axis ? width : height));
        }
    const long square = 1 + height * width / 400;
    for (long place = 0; place < shape->channels * height * width; place++) {
        const long row = place / width % height, column = place % width;
        bool inside = false;
        for (int k = 0; k < DISCS && !inside; k++) {
            const long down = row - disc[k][0], right = column - disc[k][1];
            inside = down * down + right * right < square;
        }
        state = state * 1664525u + 1013904223u;
        out[place] = (uint16_t)(base + (inside ? base / 2 : 0) + (int)(state >> 28));
    }
}

static int make_patterns(source *frames, const senoscope_frame *shape) {
    frames->frames = PATTERNS;
    frames->pixels = malloc(PATTERNS * frames->frame_bytes);
    if (!frames->pixels) return failed("not enough memory for the test pattern");
    for (int k = 0; k < PATTERNS; k++)
        draw_pattern((uint16_t *)(void *)(frames->pixels + (size_t)k * frames->frame_bytes), k, shape);
    return 0;
}

static int read_files(source *frames, int count, char **paths) {
    char message[512];
    size_t used = 0;
    for (int k = 0; k < count; k++) {
        FILE *const file = fopen(paths[k], "rb");
        long size = -1;
        if (file && fseek(file, 0, SEEK_END) == 0) size = ftell(file);
        if (size < 1 || (size_t)size % frames->frame_bytes != 0) {
            snprintf(message, sizeof message, "%s: %s", paths[k],
                     size < 0 ? "cannot be read"
                              : "its size is not a whole number of frames; see --height, --width");
            if (file) fclose(file);
            return failed(message);
        }
        rewind(file);
        unsigned char *const more = realloc(frames->pixels, used + (size_t)size);
        if (more) frames->pixels = more;
        const bool read = more && fread(more + used, (size_t)size, 1, file) == 1;
        fclose(file);
        if (!read) {
            snprintf(message, sizeof message, "%s: cannot be read into memory", paths[k]);
            return failed(message);
        }
        used += (size_t)size;
    }
    frames->frames = (long)(used / frames->frame_bytes);
    return 0;
}

/* Whether a socket that is bound to an endpoint can be reached only from this machine. */
static bool is_local(const char *endpoint) {
    if (strncmp(endpoint, "ipc://", 6) == 0 || strncmp(endpoint, "inproc://", 9) == 0) return true;
    if (strncmp(endpoint, "tcp://", 6) != 0) return false;
    const char *const host = endpoint + 6;
    if (strncmp(host, "localhost:", 10) == 0 || strncmp(host, "[::1]:", 6) == 0) return true;
    return strncmp(host, "127.", 4) == 0 && host[strspn(host, "0123456789.")] == ':';
}

/* Do nothing on release: the pixels are freed after all messages were sent. */
static void keep(void *pixels, void *hint) {
    (void)pixels;
    (void)hint;
}

/* Wait until the next frame is due; false if the program is to stop. */
static bool wait_until(senoscope_publisher *publisher, void *clock, unsigned long due_us) {
    for (;;) {
        const long left_us = (long)(due_us - zmq_stopwatch_intermediate(clock));
        if (stop_requested) return false;
        if (left_us <= 0) return true;
        const long left_ms = (left_us + 999) / 1000;
        zmq_poll(NULL, 0, left_ms < SLICE_MS ? left_ms : SLICE_MS);
        if (heartbeat_is_due(publisher) && senoscope_heartbeat(publisher) < 0) return true;
    }
}

/* Compute the position of a frame: row by row in a serpentine, with a new time point after each grid. */
static void set_position(long number, const senoscope_frame *shape, double position_um[3], int64_t index[3]) {
    const long at = number % (ROWS * COLUMNS), row = at / COLUMNS;
    const long column = row % 2 ? COLUMNS - 1 - at % COLUMNS : at % COLUMNS;
    position_um[0] = (double)column * shape->width * 0.35 * 0.9;
    position_um[1] = (double)row * shape->height * 0.35 * 0.9;
    position_um[2] = 0;
    index[0] = at;
    index[1] = number / (ROWS * COLUMNS);
    index[2] = 0;
}

static int scan(senoscope_publisher *publisher, const source *frames, senoscope_frame frame, long count,
                double rate_hz, bool json) {
    void *const clock = zmq_stopwatch_start();
    const unsigned long period_us = (unsigned long)(1e6 / rate_hz);
    unsigned long due_us = 0, first_us = 0, now_us = 0;
    double position_um[3], seconds = 0;
    int64_t index[3], sent = 0;
    long late = 0;
    frame.position_um = position_um;
    frame.index = index;
    for (long n = 0; n < count || count == 0; n++) {
        if (n && !wait_until(publisher, clock, due_us)) break;
        set_position(n, &frame, position_um, index);
        frame.pixels = frames->pixels + (size_t)(n % frames->frames) * frames->frame_bytes;
        if ((sent = senoscope_publish_frame_nocopy(publisher, &frame, keep, NULL)) < 0) break;
        sent++;
        now_us = zmq_stopwatch_intermediate(clock);
        if (n == 0) first_us = due_us = now_us;
        /* After a frame that is late by a period or more, all later frames are postponed. */
        if ((long)(now_us - due_us) >= (long)period_us) {
            late++;
            due_us = now_us;
        }
        due_us += period_us;
    }
    zmq_stopwatch_stop(clock);
    if (sent >= 0) sent = senoscope_end_series(publisher, stop_requested ? "stopped" : "completed");
    if (sent < 0) return failed(senoscope_last_error(publisher));
    seconds = (double)(now_us - first_us) / 1e6;
    printf(json ? "{\"sent\":%lld,\"late\":%ld,\"seconds\":%.3f}\n"
                : "%lld frames sent, %ld of them late, in %.1f s\n",
           (long long)sent, late, seconds);
    return 0;
}

static int wait_and_scan(senoscope_publisher *publisher, const source *frames, const senoscope_frame *shape,
                         const senoscope_series *series, double rate_hz, double wait_s, bool json) {
    for (double waited_s = 0; wait_s > 0 && !stop_requested; waited_s += SLICE_MS / 1e3) {
        if (senoscope_wait_for_subscriber(publisher, SLICE_MS)) break;
        if (waited_s >= wait_s)
            return failed(
                "no subscriber connected in time. Start the service, or do not wait for it: --wait-s 0");
    }
    if (stop_requested) return 0;
    if (senoscope_start_series_with(publisher, series) < 0) return failed(senoscope_last_error(publisher));
    return scan(publisher, frames, *shape, (long)series->planned_frames, rate_hz, json);
}

int main(int argc, char **argv) {
    const char *endpoint = "tcp://127.0.0.1:5555", *instrument = "simulator", *series_id = "simulated";
    const char *dtype = "uint16", *curve_keypair = NULL, *allowed_keys = NULL,
               *channels = "SRS,TPEF,Transmission";
    double rate_hz = 1, wait_s = 30;
    long count = 0, height = 250, width = 300;
    bool loop = false, json = false, insecure = false;
    const option table[] = {
        {"--endpoint", OPTION_TEXT, &endpoint, "to bind (default: tcp://127.0.0.1:5555)"},
        {"--instrument", OPTION_TEXT, &instrument, "the microscope's name (default: simulator)"},
        {"--series", OPTION_TEXT, &series_id, "name of the series (default: simulated)"},
        {"--rate", OPTION_POSITIVE, &rate_hz, "frames per second (default: 1)"},
        {"--frames", OPTION_COUNT, &count,
         "stop after N frames (default: at the end of the files; never with test pattern or --loop)"},
        {"--loop", OPTION_FLAG, &loop, "start again after the last file"},
        {"--channels", OPTION_TEXT, &channels, "of a frame, in order (default: SRS,TPEF,Transmission)"},
        {"--height", OPTION_COUNT, &height, "rows of a frame (default: 250)"},
        {"--width", OPTION_COUNT, &width, "columns of a frame (default: 300)"},
        {"--dtype", OPTION_TEXT, &dtype, "of the files: uint8, uint16 or float32 (default: uint16)"},
        {"--wait-s", OPTION_SECONDS, &wait_s,
         "how long to wait for a subscriber; 0: do not wait (default: 30)"},
        {"--json", OPTION_FLAG, &json, "print the summary as JSON"},
        {"--curve-keypair", OPTION_TEXT, &curve_keypair,
         "encrypt the frames with the .key_secret file of this publisher"},
        {"--allowed-keys", OPTION_TEXT, &allowed_keys,
         "accept only subscribers whose public keys are in this file"},
        {"--insecure", OPTION_FLAG, &insecure, "bind beyond this machine without --curve-keypair"},
        {NULL, OPTION_FLAG, NULL, NULL}};
    const int files =
        options_read(PROGRAM " [OPTION ...] [FILE ...]\n\nFILEs hold raw pixels, channels x rows x columns, "
                             "little-endian, frame after frame. Without files, a test pattern is sent.",
                     table, argc, argv);
    if (!curve_keypair && !insecure && !is_local(endpoint))
        options_fail("--endpoint", "every machine on the network could receive the frames; encrypt them with "
                                   "--curve-keypair, or pass --insecure");
    senoscope_frame shape = {.channels = 1};
    for (const char *at = channels; *at; at++)
        shape.channels += *at == ',';
    const int32_t dtypes[] = {SENOSCOPE_UINT8, SENOSCOPE_UINT16, SENOSCOPE_FLOAT32};
    for (int k = 0; k < 3; k++)
        if (strcmp(dtype, dtype_name(dtypes[k])) == 0) shape.dtype = dtypes[k];
    if (!shape.dtype) options_fail("--dtype", "must be uint8, uint16 or float32");
    if (!files && shape.dtype != SENOSCOPE_UINT16) options_fail("--dtype", "the test pattern is uint16");
    if (!files && loop) options_fail("--loop", "requires files");
    if (height > MAX_EXTENT || width > MAX_EXTENT ||
        (double)height * (double)width * shape.channels * shape.dtype > MAX_PIXEL_BYTES)
        options_fail("--height, --width", "a frame has at most 64 MiB");
    shape.height = (int32_t)height;
    shape.width = (int32_t)width;

    source frames = {NULL, (size_t)shape.dtype * (size_t)shape.channels * (size_t)height * (size_t)width, 0};
    int status = files ? read_files(&frames, files, argv) : make_patterns(&frames, &shape);
    if (status == 0) {
        if (files && !loop && (count == 0 || count > frames.frames)) count = frames.frames;
        stop_on_signals();
        senoscope_publisher *const publisher =
            senoscope_open(endpoint, instrument, curve_keypair, allowed_keys);
        const senoscope_series series = {.series_id = series_id,
                                         .channels = channels,
                                         .planned_frames = count,
                                         .mosaic_rows = ROWS,
                                         .mosaic_columns = COLUMNS};
        status = publisher ? wait_and_scan(publisher, &frames, &shape, &series, rate_hz, wait_s, json)
                           : failed(senoscope_last_error(NULL));
        senoscope_close(publisher); /* before the pixels are freed, as they may not be sent yet */
    }
    free(frames.pixels);
    return status;
}
