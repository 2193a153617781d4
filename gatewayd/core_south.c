/* SPDX-License-Identifier: Apache-2.0 */

/* Core's side of the two links to south: lookups during handshakes, sessions, requests and their
 * answers, notifications. What a request means is exchange.c's business. */

#include <errno.h>

#include "gatewayd/core.h"
#include "gatewayd/devices/devices.h"
#include "gatewayd/keys/authority.h"

/* How many frames of the exchange link one turn takes together at most. */
#define EXCHANGE_BURST     128
#define LOOKUP_QUEUE_BYTES (1u << 20)
/* The largest body of an answer; a frame carries it with room for the rest. */
#define REPLY_MAX (LINK_FRAME_MAX - 4096)
/* How much may wait for the barrier: a disk that hangs must not fill the memory. */
#define OUTPUTS_MAX          65536
#define EXCHANGE_QUEUE_BYTES (16u << 20)

static void event_from_peer(struct core *core, enum event_kind kind, struct bytes identity, struct bytes peer,
                            const char *reason, uint64_t count) {
        struct event event = { .kind = kind, .count = count };

        /* An identity that never matched is whatever was sent: shown only where it is plain text. */
        if (identity.size > 0 && bytes_to_text(identity, event.kid, sizeof event.kid) == 0)
                for (char *p = event.kid; *p; p++)
                        if (*p < 0x21 || *p > 0x7e)
                                *p = '?';
        (void)bytes_to_text(peer, event.peer, sizeof event.peer); /* bounded by the reader of the message */
        snprintf(event.reason, sizeof event.reason, "%s", reason);
        core_event(core, &event);
}

/* ---- lookups ---- */

static int on_psk(struct core *core, struct bytes body_in, struct buffer *body) {
        struct message_psk question;
        struct message_psk_answer answer = { 0 };
        struct credential credential;
        char reason[160] = "";
        int r;

        if (message_read_psk(body_in, &question) < 0)
                return -EBADMSG;
        r = identity_key(&core->turn, question.identity, question.has_forward_secrecy, &credential, &answer.key,
                         reason);
        answer.question = question.question;
        answer.is_found = r >= 0;
        if (r < 0) {
                secret_wipe(&answer.key);
                event_from_peer(core, EVENT_HANDSHAKE_REFUSED, question.identity, question.peer, reason, 1);
        }
        message_write_psk_answer(&answer, body);
        secret_wipe(&answer.key);
        return FRAME_PSK_ANSWER;
}

static int on_certificate(struct core *core, struct bytes body_in, struct buffer *body) {
        struct message_certificate question;
        struct message_certificate_answer answer;
        char reason[160] = "";

        if (message_read_certificate(body_in, &question) < 0)
                return -EBADMSG;
        answer.question = question.question;
        answer.verdict = identity_certificate(&core->turn, question.chain, reason);
        if (answer.verdict != CERTIFICATE_ACCEPTED)
                event_from_peer(core, EVENT_HANDSHAKE_REFUSED, BYTES(NULL, 0), question.peer, reason, 1);
        message_write_certificate_answer(&answer, body);
        return FRAME_CERTIFICATE_ANSWER;
}

static int on_lookup(void *userdata, struct frame *frame) {
        _cleanup_(buffer_free) struct buffer body = { 0 };
        struct core *core = userdata;
        int r;

        if (frame_refuse_descriptors(frame) < 0)
                return -EBADMSG;
        core_begin(core, "device");
        if (frame->type == FRAME_PSK)
                r = on_psk(core, frame->body, &body);
        else if (frame->type == FRAME_CERTIFICATE)
                r = on_certificate(core, frame->body, &body);
        else
                r = -EBADMSG;
        if (r >= 0) {
                r = link_send(core->lookup.link, (uint8_t)r, buffer_bytes(&body), LINK_NEVER_DROP);
                link_watch_flush(core->lookup.watch); /* a handshake waits: before whatever else may go now */
        }
        (void)core_end(core); /* nothing was changed */
        return r;
}

/* ---- sessions ---- */

void core_evict(struct core *core, struct session *session) {
        struct buffer body = { 0 };

        message_write_evict(&(struct message_evict){ .session = session->handle }, &body);
        output_frame(core, FRAME_EVICT, LINK_NEVER_DROP, &body);
        session_remove(core->sessions, session->handle);
}

static void evict_handle(struct core *core, session_handle handle) {
        struct buffer body = { 0 };

        message_write_evict(&(struct message_evict){ .session = handle }, &body);
        output_frame(core, FRAME_EVICT, LINK_NEVER_DROP, &body);
}

/* Did this handshake begin before the successor of its key was proven? Both in powered-on seconds; in the
 * same second counts as before: two handshakes that cross are no conflict. */
static bool begun_before_proof(struct core *core, const struct message_connected *m) {
        uint64_t now = core_monotonic_usec();
        int64_t ago = m->begun_usec < now ? (int64_t)((now - m->begun_usec) / 1000000) : 0;
        struct moment superseded = MOMENT_NONE;
        struct credential credential;

        if (m->chain.size > 0)
                superseded = identity_certificate_superseded(&core->turn, m->chain);
        else if (identity_find(&core->turn, m->identity, &credential) >= 0)
                superseded = credential.superseded;
        if (!moment_is_set(&superseded))
                return true;
        return core->turn.now.powered_sec - ago <= superseded.powered_sec;
}

static int take_proof(struct core *core, const struct message_connected *m, struct identity *ret) {
        bool is_before = begun_before_proof(core, m);

        if (m->chain.size > 0)
                return identity_certificate_connected(&core->turn, m->chain, is_before, ret);
        return identity_connected(&core->turn, m->identity, m->has_forward_secrecy, is_before, ret);
}

static int on_connected(struct core *core, struct frame *frame) {
        struct message_connected m;
        struct identity identity = { 0 };
        struct session *session;
        size_t mark = turn_mark(&core->turn);
        int r;

        if (message_read_connected(frame->body, &m) < 0)
                return -EBADMSG;
        identity.session = m.session;
        r = take_proof(core, &m, &identity);
        if (r < 0) {
                event_from_peer(core, EVENT_HANDSHAKE_REFUSED, m.identity, m.peer,
                                "the handshake proved a credential that opens nothing: it ended meanwhile, or is not "
                                "this device's",
                                1);
                evict_handle(core, m.session);
                return 0;
        }
        r = session_add(core->sessions, m.session, identity.credential.identity, identity.device.id, &session);
        if (r < 0)
                return r;
        (void)bytes_to_text(m.peer, session->peer, sizeof session->peer); /* bounded by the reader */
        memcpy(session->fingerprint, identity.certificate.fingerprint, sizeof session->fingerprint);
        memcpy(session->anchor, identity.anchor, sizeof session->anchor);
        memcpy(session->tls_unique, m.tls_unique.data, m.tls_unique.size);
        session->tls_unique_size = (uint8_t)m.tls_unique.size;
        session->has_forward_secrecy = m.has_forward_secrecy;
        session->connected = core->turn.now;
        session->attempt = core->attempt;
        if (core_take_back(core, mark))
                core_session_unwritten(core, session);
        return 0;
}

static int on_closed(struct core *core, struct frame *frame) {
        struct message_closed m;

        if (message_read_closed(frame->body, &m) < 0)
                return -EBADMSG;
        session_remove(core->sessions, m.session);
        return 0;
}

static int on_handshake_failed(struct core *core, struct frame *frame) {
        struct message_handshake_failed m;

        if (message_read_handshake_failed(frame->body, &m) < 0)
                return -EBADMSG;
        /* A refused identity was already told of, with the better reason, when it was looked up. */
        if (m.failure != FAILED_UNKNOWN_IDENTITY)
                event_from_peer(core, EVENT_HANDSHAKE_REFUSED, m.identity, m.peer, handshake_failure_name(m.failure),
                                m.count);
        return 0;
}

static int on_statistics(struct core *core, struct frame *frame) {
        struct field_reader reader = { .left = frame->body };
        uint32_t count = field_get_u32(&reader);

        if (count != SOUTH_COUNTERS)
                return -EBADMSG;
        for (uint32_t i = 0; i < count; i++)
                core->south_statistics[i] = field_get_u64(&reader);
        return field_reader_end(&reader);
}

int core_refresh(struct core *core, struct session *session, struct identity *ret) {
        int r;

        *ret = (struct identity){ .session = session->handle, .has_forward_secrecy = session->has_forward_secrecy };
        snprintf(ret->device.id, sizeof ret->device.id, "%s", session->device);
        snprintf(ret->credential.identity, sizeof ret->credential.identity, "%s", session->identity);
        memcpy(ret->certificate.fingerprint, session->fingerprint, sizeof ret->certificate.fingerprint);
        memcpy(ret->anchor, session->anchor, sizeof ret->anchor);
        ret->tls_unique = BYTES(session->tls_unique, session->tls_unique_size);
        r = identity_refresh(&core->turn, ret, &session->connected);
        if (r < 0)
                core_evict(core, session);
        return r;
}

static void check_one(void *userdata, struct session *session) {
        struct identity identity;

        (void)core_refresh(userdata, session, &identity);
}

void core_sessions_check_share(struct core *core, unsigned share) {
        session_each_share(core->sessions, share, check_one, core);
}

/* ---- requests ---- */

static void send_reply(struct core *core, const struct message_request *m, const struct profile *profile,
                       const struct reply *reply) {
        struct message_reply answer = {
                .session = m->session,
                .exchange = m->exchange,
                .code = reply->code,
                .content_format = reply->content_format,
                .max_age_sec = reply->max_age_sec,
                .size1 = reply->size1,
                .block_size = profile ? profile->block_size : 512,
                .is_observed = reply->is_observed,
                .payload = buffer_bytes(&reply->payload),
        };
        struct buffer body = { 0 };

        message_write_reply(&answer, &body);
        output_frame(core, FRAME_REPLY, LINK_MAY_REFUSE, &body);
}

static unsigned observed_bit(struct bytes path) {
        if (bytes_equal(path, TEXT("me")))
                return OBSERVES_ME;
        return bytes_equal(path, TEXT("rats/result")) ? OBSERVES_RESULT : 0;
}

/* What no frame can carry (a CRL may grow) is said instead of being lost on the way. */
static void bound_reply(struct reply *reply) {
        struct problem problem = { 0 };

        if (reply->payload.size <= REPLY_MAX)
                return;
        problem_set(&problem, CODE_INTERNAL, EMSGSIZE, "too large",
                    "the answer has %zu bytes and CoAP carries at most %d here", reply->payload.size, REPLY_MAX);
        reply_problem(reply, &problem);
}

static void tell_refusal(struct core *core, const struct session *session, const struct request *request,
                         const struct problem *problem) {
        struct event event = { .kind = EVENT_REQUEST_REFUSED };

        if (problem->code != CODE_FORBIDDEN)
                return;
        snprintf(event.device, sizeof event.device, "%s", session->device);
        snprintf(event.profile, sizeof event.profile, "%s", request->from->device.profile);
        snprintf(event.kid, sizeof event.kid, "%s", session->identity);
        snprintf(event.peer, sizeof event.peer, "%s", session->peer);
        snprintf(event.reason, sizeof event.reason, "/%.*s: %.100s",
                 (int)(request->path.size < 40 ? request->path.size : 40), (const char *)request->path.data,
                 problem->detail);
        core_event(core, &event);
}

/* Authorises, recalls what was answered before, or handles. */
static void answer(struct core *core, struct session *session, const struct message_request *m,
                   const struct request *request) {
        struct reply reply = { .content_format = FORMAT_NONE, .max_age_sec = -1 };
        const struct exchange_entry *entry;
        struct problem problem = { 0 };
        struct remembered *before;
        uint64_t now = core_monotonic_usec();
        size_t mark = turn_mark(&core->turn);

        if (exchange_authorise(&core->turn, request, &entry, &problem) < 0) {
                tell_refusal(core, session, request, &problem);
                reply_problem(&reply, &problem);
                send_reply(core, m, request->from->profile, &reply);
                buffer_free(&reply.payload);
                return;
        }
        before = m->method == CODE_GET ? NULL : session_recall(session, m->message_id, m->token, now);
        if (before) {
                send_reply(core, m, request->from->profile, &before->reply);
                return;
        }
        exchange_handle(&core->turn, entry, request, &reply);
        bound_reply(&reply);
        if (core_take_back(core, mark)) {
                problem_not_stored(&problem, ENOSPC);
                reply_problem(&reply, &problem);
        } else if (m->method != CODE_GET)
                session_remember(session, m->message_id, m->token, now, core->attempt, &reply);
        if (reply.is_observed)
                session->observes |= observed_bit(m->path);
        else if (m->observe == 1)
                session->observes &= ~observed_bit(m->path);
        send_reply(core, m, request->from->profile, &reply);
        buffer_free(&reply.payload);
}

/* Says nothing of the store, so it waits for no barrier. */
static int turn_away(struct core *core, const struct message_request *m) {
        _cleanup_(buffer_free) struct buffer body = { 0 };
        int r;

        message_write_reply(
                &(struct message_reply){
                        .session = m->session,
                        .exchange = m->exchange,
                        .code = CODE_UNAVAILABLE,
                        .content_format = FORMAT_NONE,
                        .max_age_sec = 10,
                        .block_size = 512,
                },
                &body);
        r = link_send(core->exchange.link, FRAME_REPLY, buffer_bytes(&body), LINK_MAY_REFUSE);
        return r == -ENOBUFS ? 0 : r; /* the device sends it again */
}

static int on_request(struct core *core, struct frame *frame) {
        struct message_request m;
        struct identity identity;
        struct session *session;

        if (message_read_request(frame->body, &m) < 0)
                return -EBADMSG;
        if (core->outputs.count >= OUTPUTS_MAX)
                return turn_away(core, &m);
        session = session_find(core->sessions, m.session);
        if (!session) {
                evict_handle(core, m.session);
                return 0;
        }
        if (core_refresh(core, session, &identity) < 0)
                return 0;
        answer(core, session, &m,
               &(struct request){
                       .from = &identity,
                       .method = m.method,
                       .path = m.path,
                       .query = m.query,
                       .content_format = m.content_format,
                       .accept = m.accept,
                       .observe = m.observe,
                       .payload = m.payload,
               });
        return 0;
}

static int on_exchange(void *userdata, struct frame *frame) {
        struct core *core = userdata;

        if (frame_refuse_descriptors(frame) < 0)
                return -EBADMSG;
        if (!core->is_turn_open)
                core_begin(core, "device");
        switch (frame->type) {
        case FRAME_CONNECTED:
                return on_connected(core, frame);
        case FRAME_CLOSED:
                return on_closed(core, frame);
        case FRAME_REQUEST:
                return on_request(core, frame);
        case FRAME_HANDSHAKE_FAILED:
                return on_handshake_failed(core, frame);
        case FRAME_SOUTH_STATISTICS:
                return on_statistics(core, frame);
        default:
                return -EBADMSG;
        }
}

static void after_exchange(void *userdata) {
        (void)core_end(userdata); /* core_end() has dealt with a turn that failed */
}

/* ---- notifications ---- */

struct notification {
        struct core *core;
        unsigned observes;
};

static void notify_session(void *userdata, struct session *session) {
        struct reply reply = { .content_format = FORMAT_NONE, .max_age_sec = -1 };
        struct notification *what = userdata;
        struct core *core = what->core;
        struct problem problem = { 0 };
        struct identity identity;
        struct request request = {
                .from = &identity,
                .method = CODE_GET,
                .content_format = FORMAT_NONE,
                .accept = FORMAT_NONE,
                .observe = 0,
                .path = what->observes == OBSERVES_ME ? TEXT("me") : TEXT("rats/result"),
        };
        struct buffer body = { 0 };
        int r;

        if (!(session->observes & what->observes) || core_refresh(core, session, &identity) < 0)
                return;
        r = what->observes == OBSERVES_ME ? handle_me(&core->turn, &request, &reply, &problem)
                                          : handle_result(&core->turn, &request, &reply, &problem);
        if (r < 0)
                reply_problem(&reply, &problem);
        message_write_reply(
                &(struct message_reply){
                        .session = session->handle,
                        .code = reply.code,
                        .content_format = reply.content_format,
                        .max_age_sec = reply.max_age_sec,
                        .block_size = identity.profile->block_size,
                        .path = request.path,
                        .payload = buffer_bytes(&reply.payload),
                },
                &body);
        output_frame(core, FRAME_NOTIFY, LINK_MAY_REFUSE, &body);
        buffer_free(&reply.payload);
}

void core_notify(struct core *core, const char *device, unsigned observes) {
        struct notification what = { .core = core, .observes = observes };

        session_each(core->sessions, device, notify_session, &what);
}

/* ---- the links ---- */

static void on_gone(void *userdata, int error) {
        struct core *core = userdata;

        /* The supervisor sees south's end too and sends the links to the next one. */
        journal_line(error == -EPIPE ? 5 : 3, "core: south's link ended: %s", strerror(-error));
        core_south_detach(core);
}

static int attach(struct core *core, struct core_link *to, int fd, size_t queue,
                  const struct link_watch_options *options) {
        int r = link_new(fd, queue, &to->link);

        return r < 0 ? r : link_watch_new(core->process.event, to->link, options, &to->watch);
}

static void detach(struct core_link *from) {
        from->watch = link_watch_free(from->watch);
        from->link = link_free(from->link);
}

void core_south_detach(struct core *core) {
        detach(&core->lookup);
        detach(&core->exchange);
        session_clear(core->sessions);
        memset(core->south_statistics, 0, sizeof core->south_statistics);
}

/* Read from the store as it is: what the last turn made of them waits for its barrier like all else. */
void core_south_credentials(struct core *core) {
        struct server_credentials credentials = { 0 };
        bool is_turn_mine = !core->is_turn_open;
        struct buffer body = { 0 };
        int r;

        if (!core->exchange.link)
                return;
        if (is_turn_mine)
                core_begin(core, "core");
        r = authority_server_credentials(&core->turn, &credentials);
        if (r < 0 && r != -ENOENT)
                journal_line(3, "core: the server's certificate could not be read: %s", strerror(-r));
        message_write_server_credentials(
                &(struct message_server_credentials){
                        .key = buffer_bytes(&credentials.key),
                        .chain = buffer_bytes(&credentials.chain),
                },
                &body);
        server_credentials_free(&credentials);
        output_frame(core, FRAME_SERVER_CREDENTIALS, LINK_NEVER_DROP, &body);
        if (is_turn_mine)
                (void)core_end(core); /* changed nothing */
}

int core_south_attach(struct core *core, int lookup, int exchange) {
        const struct link_watch_options lookups = {
                .priority = SD_EVENT_PRIORITY_IMPORTANT, /* a handshake waits for it: before all else */
                .burst = 64,
                .handle = on_lookup,
                .gone = on_gone,
                .userdata = core,
        };
        const struct link_watch_options exchanges = {
                .burst = EXCHANGE_BURST,
                .handle = on_exchange,
                .after = after_exchange,
                .gone = on_gone,
                .userdata = core,
        };
        int r;

        core_south_detach(core);
        r = attach(core, &core->lookup, lookup, LOOKUP_QUEUE_BYTES, &lookups);
        if (r >= 0)
                r = attach(core, &core->exchange, exchange, EXCHANGE_QUEUE_BYTES, &exchanges);
        if (r >= 0)
                core_south_credentials(core); /* the first frame: south waits for it */
        return r;
}
