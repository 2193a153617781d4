/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What gatewayctl doctor finds. Pure: what the gateway says in, findings out. */

#include "gatewayd/operator/gatewayctl_value.h"

enum severity { NOTICE, WARNING, CRITICAL };

struct finding {
        enum severity severity;
        char what[400];
        const char *remedy;
};

struct findings {
        struct finding list[40];
        size_t count;
};

/* `status`: what Status returns; `devices`: a list of what ListDevices returns. */
void doctor_examine(const struct value *status, const struct value *devices, struct findings *ret);
