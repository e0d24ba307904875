/* Parts of the programs: command lines of the form `--name value`, messages, and the end by a signal.
 *
 * PROGRAM is the name of the program. An invalid command line ends it with exit status 2.
 */
#ifndef SENOSCOPE_OPTIONS_H
#define SENOSCOPE_OPTIONS_H

#include <math.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef enum {
    OPTION_FLAG,     /* bool */
    OPTION_TEXT,     /* const char * */
    OPTION_COUNT,    /* long, at least 1 */
    OPTION_POSITIVE, /* double, above 0 */
    OPTION_SECONDS   /* double, at least 0 */
} option_kind;

typedef struct {
    const char *name; /* with its dashes; NULL at the end of a table */
    option_kind kind;
    void *value;
    const char *help;
} option;

static volatile sig_atomic_t stop_requested;

static inline void stop(int signal_number) {
    (void)signal_number;
    stop_requested = 1;
}

static inline void stop_on_signals(void) {
    signal(SIGINT, stop);
    signal(SIGTERM, stop);
}

static inline int failed(const char *what) {
    fprintf(stderr, PROGRAM ": %s\n", what);
    return 1;
}

static const char *const option_metavar[] = {"", " TEXT", " N", " NUMBER", " SECONDS"};

static inline _Noreturn void options_fail(const char *name, const char *what) {
    fprintf(stderr, PROGRAM ": %s: %s; see --help\n", name, what);
    exit(2);
}

static inline _Noreturn void options_help(const char *usage, const option *table) {
    printf("usage: %s\n\n", usage);
    for (const option *each = table; each->name; each++) {
        const int used = printf("  %s%s", each->name, option_metavar[each->kind]);
        printf("%*s%s\n", used < 28 ? 28 - used : 1, "", each->help);
    }
    exit(0);
}

static inline void option_set(const option *chosen, const char *text) {
    char *rest = NULL;
    double number = 0;
    switch (chosen->kind) {
    case OPTION_FLAG: *(bool *)chosen->value = true; return;
    case OPTION_TEXT:
        /* An empty variable in a script must not disable encryption. */
        if (!*text) options_fail(chosen->name, "needs a value");
        *(const char **)chosen->value = text;
        return;
    case OPTION_COUNT:
        *(long *)chosen->value = strtol(text, &rest, 10);
        if (rest == text || *rest || *(long *)chosen->value < 1 || *(long *)chosen->value > 2000000000L)
            options_fail(chosen->name, "needs a whole number, at least 1");
        return;
    default:
        number = strtod(text, &rest);
        if (rest == text || *rest || !isfinite(number) || number < 0 || number > 1e6 ||
            (chosen->kind == OPTION_POSITIVE && number < 1e-3))
            options_fail(chosen->name,
                         chosen->kind == OPTION_POSITIVE ? "needs a number from 0.001 to 1000000"
                                                         : "needs a number of seconds, at least 0");
        *(double *)chosen->value = number;
    }
}

/* Set the values in the table; other arguments are moved to the front of `argv`, and counted. */
static inline int options_read(const char *usage, const option *table, int argc, char **argv) {
    int others = 0;
    for (int k = 1; k < argc; k++) {
        if (strncmp(argv[k], "--", 2) != 0) {
            argv[others++] = argv[k];
            continue;
        }
        if (strcmp(argv[k], "--help") == 0) options_help(usage, table);
        const option *chosen = table;
        while (chosen->name && strcmp(chosen->name, argv[k]) != 0)
            chosen++;
        if (!chosen->name) options_fail(argv[k], "unknown option");
        const bool flag = chosen->kind == OPTION_FLAG;
        if (!flag && k + 1 == argc) options_fail(argv[k], "needs a value");
        option_set(chosen, flag ? NULL : argv[++k]);
    }
    return others;
}

#endif
