/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Writing what a method returns: dictionaries of named, typed values. The first error sticks, so that
 * a method writes its answer down and asks once. */

#include <systemd/sd-bus.h>

#include "gatewayd/clock.h"

struct answer {
        sd_bus_message *message;
        int error;
};

void answer_open(struct answer *answer, char type, const char *contents);
void answer_close(struct answer *answer);
/* A dictionary a{sv}, as a value of its own or as an entry `{sa{sv}}` of a dictionary of sections. */
void answer_dict_open(struct answer *answer);
void answer_dict_close(struct answer *answer);
void answer_section_open(struct answer *answer, const char *name);
void answer_section_close(struct answer *answer);

/* Entries of the open dictionary. Text that is no UTF-8 (somebody outside wrote it) is made so. */
void answer_text(struct answer *answer, const char *key, const char *value);
void answer_number(struct answer *answer, const char *key, uint64_t value);
void answer_signed(struct answer *answer, const char *key, int64_t value);
void answer_real(struct answer *answer, const char *key, double value);
void answer_bool(struct answer *answer, const char *key, bool value);
/* Calendar seconds; 0 where the moment was never set. */
void answer_moment(struct answer *answer, const char *key, const struct moment *moment);
