/* SPDX-License-Identifier: Apache-2.0 */

/* Block2: cutting answers, keeping what is left of them. */

#include "coap/kept.h"

#include <errno.h>
#include <openssl/sha.h>
#include <stdlib.h>

#define SEC UINT64_C(1000000)

struct kept {
        struct session *session;
        uint8_t method;
        struct buffer path, query, payload;
        struct answer answer; /* without payload, block and observe */
        uint64_t kept_usec, used_usec;
        LIST_ENTRY(kept) of_session;
        TAILQ_ENTRY(kept) by_use;
};
TAILQ_HEAD(kept_queue, kept);

struct kept_answers {
        unsigned max_answers, count;
        struct kept_queue by_use;
};

struct kept_answers *kept_new(unsigned max_answers) {
        struct kept_answers *answers = xcalloc(1, sizeof *answers);

        answers->max_answers = max_answers;
        TAILQ_INIT(&answers->by_use);
        return answers;
}

static void kept_drop(struct kept_answers *answers, struct kept *kept) {
        LIST_REMOVE(kept, of_session);
        TAILQ_REMOVE(&answers->by_use, kept, by_use);
        kept->session->kept_count--;
        answers->count--;
        buffer_free(&kept->path);
        buffer_free(&kept->query);
        buffer_free(&kept->payload);
        free(kept);
}

struct kept_answers *kept_free(struct kept_answers *answers) {
        struct kept *kept;

        if (!answers)
                return NULL;
        while ((kept = TAILQ_FIRST(&answers->by_use)))
                kept_drop(answers, kept);
        free(answers);
        return NULL;
}

void kept_forget(struct kept_answers *answers, struct session *session) {
        struct kept *kept;

        while ((kept = LIST_FIRST(&session->kept)))
                kept_drop(answers, kept);
}

uint64_t kept_tick(struct kept_answers *answers, uint64_t now_usec) {
        struct kept *kept;

        while ((kept = TAILQ_FIRST(&answers->by_use))) {
                if (now_usec - kept->used_usec < KEPT_LIFETIME_USEC)
                        return kept->used_usec + KEPT_LIFETIME_USEC;
                kept_drop(answers, kept);
        }
        return UINT64_MAX;
}

static struct kept *kept_find(const struct session *session, const struct kept_key *key) {
        struct kept *kept;

        LIST_FOREACH(kept, &session->kept, of_session)
                if (kept->method == key->method && bytes_equal(buffer_bytes(&kept->path), key->path) &&
                    bytes_equal(buffer_bytes(&kept->query), key->query))
                        return kept;
        return NULL;
}

static struct kept *oldest_of(const struct session *session) {
        struct kept *kept, *oldest = LIST_FIRST(&session->kept);

        LIST_FOREACH(kept, &session->kept, of_session)
                if (kept->used_usec < oldest->used_usec)
                        oldest = kept;
        return oldest;
}

static void keep(struct kept_answers *answers, struct session *session, const struct kept_key *key,
                 const struct answer *answer, uint64_t now_usec) {
        struct kept *kept = kept_find(session, key);

        if (kept)
                kept_drop(answers, kept);
        if (session->kept_count >= KEPT_PER_SESSION)
                kept_drop(answers, oldest_of(session));
        if (answers->count >= answers->max_answers)
                kept_drop(answers, TAILQ_FIRST(&answers->by_use));
        kept = xcalloc(1, sizeof *kept);
        kept->session = session;
        kept->method = key->method;
        buffer_append(&kept->path, key->path);
        buffer_append(&kept->query, key->query);
        buffer_append(&kept->payload, answer->payload);
        kept->answer = *answer;
        kept->answer.payload = BYTES(NULL, 0);
        kept->answer.problem = (struct buffer){ 0 };
        kept->answer.block1 = (struct block){ 0 };
        kept->answer.observe = -1;
        kept->kept_usec = kept->used_usec = now_usec;
        LIST_INSERT_HEAD(&session->kept, kept, of_session);
        TAILQ_INSERT_TAIL(&answers->by_use, kept, by_use);
        session->kept_count++;
        answers->count++;
}

/* Takes the block at `offset` out of the whole payload. False when the payload ends before it. */
static bool cut(struct answer *answer, struct bytes whole, size_t offset, uint8_t exponent) {
        size_t size = block_bytes(exponent);

        if (offset > 0 && offset >= whole.size)
                return false;
        answer->payload = BYTES(whole.data + offset, whole.size - offset);
        if (answer->payload.size > size)
                answer->payload.size = size;
        answer->block2 = (struct block){
                .is_present = true,
                .has_more = offset + answer->payload.size < whole.size,
                .number = (uint32_t)(offset / size),
                .size_exponent = exponent,
        };
        if (offset == 0 && answer->block2.has_more)
                answer->size2 = (uint32_t)whole.size;
        return true;
}

static void beyond_the_end(struct answer *answer) {
        struct problem problem = { 0 };

        (void)problem_set(&problem, CODE_BAD_REQUEST, ERANGE, "bad Block2 option", "the answer ends before this block");
        answer_clear(answer);
        answer_with_problem(answer, &problem);
}

/* A client may ask for larger blocks than we send; a later block is then found by its offset. */
static uint8_t exponent_for(const struct block *wanted, uint8_t largest) {
        return wanted->size_exponent < largest ? wanted->size_exponent : largest;
}

void kept_cut(struct kept_answers *answers, struct session *session, const struct kept_key *key,
              const struct block *wanted, uint8_t largest, uint8_t preferred, uint64_t now_usec,
              struct answer *answer) {
        uint8_t exponent = wanted->is_present    ? exponent_for(wanted, largest)
                           : preferred < largest ? preferred
                                                 : largest;
        size_t offset = wanted->is_present ? (size_t)wanted->number * block_bytes(wanted->size_exponent) : 0;
        struct bytes whole = answer->payload;

        if (whole.size <= block_bytes(exponent) && !wanted->is_present)
                return;
        if (whole.size > block_bytes(exponent)) {
                uint8_t digest[SHA256_DIGEST_LENGTH];

                SHA256(whole.data, whole.size, digest);
                memcpy(answer->etag, digest, ETAG_BYTES);
                answer->has_etag = true;
                keep(answers, session, key, answer, now_usec);
        }
        if (!cut(answer, whole, offset, exponent))
                beyond_the_end(answer);
}

bool kept_serve(struct kept_answers *answers, struct session *session, const struct kept_key *key,
                const struct block *wanted, uint8_t largest, uint64_t now_usec, struct answer *answer) {
        struct kept *kept = kept_find(session, key);
        int64_t age_sec;

        if (!kept)
                return false;
        kept->used_usec = now_usec;
        TAILQ_REMOVE(&answers->by_use, kept, by_use);
        TAILQ_INSERT_TAIL(&answers->by_use, kept, by_use);
        answer_clear(answer);
        *answer = kept->answer;
        age_sec = (int64_t)((now_usec - kept->kept_usec) / SEC);
        if (answer->max_age_sec >= 0)
                answer->max_age_sec = answer->max_age_sec > age_sec ? answer->max_age_sec - age_sec : 0;
        if (!cut(answer, buffer_bytes(&kept->payload), (size_t)wanted->number * block_bytes(wanted->size_exponent),
                 exponent_for(wanted, largest)))
                beyond_the_end(answer);
        return true;
}
