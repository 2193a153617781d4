/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The gateway's own keys: which there are, how old they are, when each is due and what happens then.
 *
 *   receipt key     a new one at keys.receipt_every; announced in the receipt chain itself by the old one
 *   data keys       a new one at keys.data_every; all secrets move to it while devices are served
 *   sealing key     by root (gatewayctl sealing rotate); a reminder at keys.sealing_every
 *   recovery key    by an operator (gatewayctl sealing recovery); a reminder at keys.recovery_every
 *   server leaf     authority_server.c; issuing CA: authority_schedule.c
 *   upstream client certificate   registrar_client.c, where north.est_renews_client
 *
 * Challenges have no key: each is 32 random bytes in the store. South's cookie key lives in its memory alone. */

#include "gatewayd/turn.h"
#include "store/devices.h"
#include "store/own_keys.h"

enum own_key_action { OWN_KEY_WAIT, OWN_KEY_ROTATE, OWN_KEY_REMIND };
struct own_key_step {
        enum own_key_action action;
        struct due_time next; /* with WAIT */
};
/* Pure. `every_sec` 0: never. Due by whichever clock says so first; a reminder is told once for each key. */
struct own_key_step own_key_next(const struct own_key *key, int64_t every_sec, bool is_ours_to_rotate,
                                 const struct moment *now);

/* struct own_key's `told` of the keys below; of the upstream client certificate: registrar_client.c. */
enum {
        OWN_KEY_TOLD_DUE = 1,      /* the reminder */
        OWN_KEY_TOLD_PREPARED = 2, /* a new sealing key is prepared, and not told of as in force */
};
/* How old a key gets: keys.*_every of its kind; 0: no schedule. */
int64_t own_key_every(const struct config *config, enum own_key_kind kind);
/* "receipt key", "data key", ... */
const char *own_key_name(enum own_key_kind kind);

/* First turn of core: rows for keys that an older gatewayd made. Needs turn->custodian. */
int own_keys_open(struct turn *turn);
/* Each tick: rotates what is due, moves a portion of the secrets to the newest data key. *ret_next: when to look
 * again (1 s from now while secrets are moving). Needs turn->custodian. */
int own_keys_tick(struct turn *turn, struct due_time *ret_next);

/* In the turn that made a new recovery key. */
int own_keys_recovery_made(struct turn *turn);
/* The two steps to a new sealing key (store_rewrap_prepare, store_rewrap_finish), in the turn of each. A start with
 * the new key is the second step: own_keys_open() tells of it. */
int own_keys_sealing_prepared(struct turn *turn);
int own_keys_sealing_changed(struct turn *turn);
