/* Declarations of both libraries: how functions are exported, and what errors they return. */
#ifndef SENOSCOPE_API_H
#define SENOSCOPE_API_H

#include <stdint.h>

#if defined(_WIN32) && defined(SENOSCOPE_LIBRARY)
#define SENOSCOPE_API __declspec(dllexport)
#else
#define SENOSCOPE_API
#endif

enum {
    SENOSCOPE_BAD_ARGUMENT = -1, /* a value that the format does not support, or an invalid key */
    SENOSCOPE_WRONG_STATE = -2,  /* no series is open, or one is open already */
    SENOSCOPE_NETWORK = -3,      /* ZeroMQ failed, or there is not enough memory */
    SENOSCOPE_REFUSED = -4       /* the service refuses the connection */
};

#endif
