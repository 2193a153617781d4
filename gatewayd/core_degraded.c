/* SPDX-License-Identifier: Apache-2.0 */

/* Core while nothing can be stored: a disk that is full, a file system that became read-only. Known keys open
 * sessions and read; whatever would change something gets 5.03, and nothing of it is half done. The tick tries each
 * time whether a turn can be written again.
 *
 * The first handshake with a key proves it, and a proof that is not written has not happened. Such a session may
 * read what the key may read. Once turns are written again it is ended, and the device's next handshake is the
 * proof: what would have come of it had core died between the handshake and its commit. */

#include <stdlib.h>

#include "gatewayd/core.h"
#include "gatewayd/devices/devices.h"
#include "gatewayd/keys/authority.h"

/* ---- what a dropped turn wanted to say ---- */

/* The question of an answer that was dropped is answered all the same: the device keeps what it has. */
static bool refuse_reply(struct output *output, const struct problem *problem) {
        struct reply refusal = { .content_format = FORMAT_NONE, .max_age_sec = -1 };
        struct message_reply m;
        struct buffer body = { 0 };

        if (message_read_reply(buffer_bytes(&output->body), &m) < 0)
                return false; /* cannot be: core wrote it */
        reply_problem(&refusal, problem);
        message_write_reply(
                &(struct message_reply){
                        .session = m.session,
                        .exchange = m.exchange,
                        .code = refusal.code,
                        .content_format = refusal.content_format,
                        .max_age_sec = refusal.max_age_sec,
                        .block_size = m.block_size,
                        .payload = buffer_bytes(&refusal.payload),
                },
                &body);
        buffer_free(&refusal.payload);
        buffer_free(&output->body);
        output->body = body;
        return true;
}

/* An eviction stands: that a session ends takes nothing from the store. */
static bool may_still_leave(struct output *output, const struct problem *problem) {
        if (output->kind != OUTPUT_FRAME)
                return false;
        if (output->frame_type == FRAME_REPLY)
                return refuse_reply(output, problem);
        return output->frame_type == FRAME_EVICT;
}

static void refuse_outputs(struct output_queue *queue, int error) {
        size_t first = queue->count, kept, waiting = 0;
        _cleanup_(freep) struct output *dropped = NULL;
        struct problem problem = { 0 };

        while (first > 0 && output_at(queue, first - 1)->turn == TURN_OPEN)
                first--;
        problem_not_stored(&problem, error);
        dropped = xcalloc(queue->count - first + 1, sizeof *dropped);
        kept = first;
        for (size_t i = first; i < queue->count; i++) {
                struct output *output = output_at(queue, i);

                if (may_still_leave(output, &problem))
                        *output_at(queue, kept++) = *output;
                else
                        dropped[waiting++] = *output;
        }
        queue->count = kept;
        for (size_t i = 0; i < waiting; i++) {
                buffer_free(&dropped[i].body);
                if (dropped[i].kind == OUTPUT_DONE)
                        dropped[i].done(dropped[i].arg, error);
        }
}

/* ---- sessions whose handshake could not be written ---- */

void core_session_unwritten(struct core *core, struct session *session) {
        struct identity identity;

        if (core_refresh(core, session, &identity) < 0)
                return; /* what opened it was in the dropped changes: it is evicted */
        session->is_unwritten = identity.credential.state != KEY_ACTIVE;
        session->attempt = 0;
}

static void look_again(void *userdata, struct session *session) {
        struct core *core = userdata;

        if (session->attempt == core->attempt)
                core_session_unwritten(core, session);
}

static void evict_unwritten(void *userdata, struct session *session) {
        if (session->is_unwritten)
                core_evict(userdata, session);
}

/* ---- in and out ---- */

void core_degrade(struct core *core, int error) {
        struct event event = { .kind = EVENT_STORE_DEGRADED };

        store_rollback(core->store);
        authority_turn_dropped(core->turn.issuer);
        turn_clear(&core->turn);
        refuse_outputs(&core->outputs, error);
        session_each(core->sessions, NULL, look_again, core);
        session_forget_attempt(core->sessions, core->attempt);
        if (core->is_degraded)
                return;
        core->is_degraded = true;
        snprintf(event.reason, sizeof event.reason, "a turn could not be committed and was dropped: %s",
                 strerror(-error));
        core_event(core, &event);
}

bool core_take_back(struct core *core, size_t mark) {
        if (!core->is_degraded || !store_is_changed(core->store))
                return false;
        store_rollback(core->store);
        authority_turn_dropped(core->turn.issuer);
        turn_rewind(&core->turn, mark);
        return true;
}

bool core_try_again(struct core *core) {
        (void)store_meta_set_clock(core->store, &core->clock); /* a failure shows at the commit */
        if (core_end(core) < 0)
                return false;
        core_begin(core, "schedule");
        return true;
}

void core_recover(struct core *core) {
        struct event event = { .kind = EVENT_STORE_RECOVERED, .reason = "turns are committed again" };

        core->is_degraded = false;
        core_event(core, &event);
        core_north_again(core);
        session_each(core->sessions, NULL, evict_unwritten, core);
}
