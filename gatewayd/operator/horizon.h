/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The offline horizon: until when the uplink may stay away, and what gives out first. Pure.
 *
 * Known devices, their PSKs and their rotation need no uplink, ever: nothing here ends them. What has an end is
 * the room for evidence, and whatever carries a date that only an upstream can move: each with its effect. What
 * merely goes stale and is renewed here, or the day the uplink returns, is listed but limits nothing. */

#include "gatewayd/clock.h"

/* X(constant, name, stops, effect). `stops`: from then on something that devices or the upstream need does not
 * happen until a person or the uplink helps. */
/* clang-format off */
#define HORIZON_LIST(X) \
        X(RECORDS,  "records",     true,  "new evidence is refused with 5.03; devices keep it") \
        X(BYTES,    "bytes",       true,  "new evidence is refused with 5.03; devices keep it") \
        X(DISK,     "disk",        true,  "nothing can be granted or taken; known keys still open sessions and read") \
        X(CA,       "ca",          true,  "no certificate is issued or renewed; those that run out can still renew later") \
        X(CHAIN,    "ca-chain",    true,  "devices that look at dates refuse the gateway's certificate") \
        X(CLIENT,   "upstream-certificate", true, "the upstream may refuse the gateway when the uplink returns; its renewal is tried all the same") \
        X(CRL,      "crl",         false, "services that look at dates refuse the CRL; devices are not concerned") \
        X(CLOCK,    "clock",       false, "ages count by powered-on time alone; nothing ends by its date")
/* clang-format on */

#define HORIZON_ENUM(constant, name, stops, effect) HORIZON_##constant,
enum horizon_limit { HORIZON_NONE, HORIZON_LIST(HORIZON_ENUM) HORIZON_LIMITS };
#undef HORIZON_ENUM

const char *horizon_limit_name(enum horizon_limit limit);
const char *horizon_effect(enum horizon_limit limit);

struct horizon_view {
        struct moment now;
        uint64_t records, records_max;
        uint64_t bytes, bytes_max;
        uint64_t disk_free_bytes;
        double records_per_day;
        double bytes_per_record;   /* of evidence and receipt, as the backlog counts them */
        double disk_bytes_per_day; /* by which the store's file grows, all in all */
        /* Ends by the calendar; 0: there is none. */
        unix_sec ca_end;     /* when the last generation that has a certificate can sign no more; none where its
                                successor is made here, without anybody's help */
        unix_sec chain_end;  /* of the first of the CA's own issuers to run out */
        unix_sec client_end; /* of the certificate shown upstream */
        unix_sec crl_end;    /* nextUpdate, where no new CRL can be made now */
};

#define HORIZON_NEVER INT64_MAX
struct horizon_end {
        enum horizon_limit limit;
        int64_t seconds; /* until then; 0: now, or it is over; HORIZON_NEVER */
};
struct horizon {
        enum horizon_limit first;                /* of those that stop something */
        int64_t seconds;                         /* until then; 0: now; HORIZON_NEVER */
        struct horizon_end ends[HORIZON_LIMITS]; /* those that will come, the nearest first */
        size_t count;
};

struct horizon horizon_compute(const struct horizon_view *view);
