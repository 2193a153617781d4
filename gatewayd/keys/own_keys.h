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
#include "store/own_keys.h"

enum own_key_action { OWN_KEY_WAIT, OWN_KEY_ROTATE, OWN_KEY_REMIND };
struct own_key_step {
        enum own_key_action action;
        struct due_time next; /* with WAIT */
};
/* Pure. `every_sec` 0: never. Due by whichever clock says so first; a reminder is told once for each key. */
struct own_key_step own_key_next(const struct own_key *key, int64_t every_sec, bool is_ours_to_rotate,
                                 const struct moment *now);

/* First turn of core: rows for keys that an older gatewayd made. */
int own_keys_open(struct turn *turn);
/* Each tick: rotates what is due, moves a portion of the secrets to the newest data key. *ret_next: when to look
 * again (1 s from now while secrets are moving). Needs turn->custodian. */
int own_keys_tick(struct turn *turn, struct due_time *ret_next);
