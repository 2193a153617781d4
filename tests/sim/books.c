/* SPDX-License-Identifier: Apache-2.0 */

/* The devices' own books: what each of them saw happen, to be compared with the gateway's and the
 * upstream's. */

#include "sim.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/sha.h>

#include "device_cbor.h"

/* ---- taking ---- */

/* The nonce inside evidence as device_payload.c writes it: the first claim. */
static bool find_nonce(struct device_bytes evidence, struct device_cbor_item *nonce) {
        struct device_cbor_reader reader = { evidence.data, evidence.data + evidence.size };
        struct device_cbor_item item;
        int64_t claim;

        if (!device_cbor_expect(&reader, DEVICE_CBOR_TAG, &item) ||
            !device_cbor_expect(&reader, DEVICE_CBOR_ARRAY, &item) ||
            !device_cbor_expect(&reader, DEVICE_CBOR_BYTES, &item) || !device_cbor_skip(&reader) ||
            !device_cbor_expect(&reader, DEVICE_CBOR_BYTES, &item))
                return false;
        reader = (struct device_cbor_reader){ item.data, item.data + item.value };
        return device_cbor_expect(&reader, DEVICE_CBOR_MAP, &item) && device_cbor_read_integer(&reader, &claim) &&
               claim == 10 && device_cbor_expect(&reader, DEVICE_CBOR_BYTES, nonce) &&
               nonce->value == sizeof(((struct evidence_record *)0)->nonce);
}

static void take_evidence(struct books *books, struct device_bytes evidence) {
        struct evidence_record *grown;
        struct device_cbor_item nonce;

        grown = realloc(books->evidence, (books->evidence_count + 1) * sizeof(*grown));
        if (!grown) {
                fputs("gateway-sim: out of memory\n", stderr);
                abort();
        }
        books->evidence = grown;
        grown += books->evidence_count++;
        *grown = (struct evidence_record){ .sequence = -1, .tier = -1 };
        if (find_nonce(evidence, &nonce))
                memcpy(grown->nonce, nonce.data, sizeof(grown->nonce));
        SHA256(evidence.data, evidence.size, grown->digest);
}

/* The reply to evidence: {0: sequence of the receipt, 1: tier, 2: reason}. */
static void take_acceptance(struct books *books, struct device_bytes reply) {
        struct device_cbor_reader reader = { reply.data, reply.data + reply.size };
        struct evidence_record *record;
        struct device_cbor_item map;
        int64_t key, value;
        uint64_t i;

        if (books->evidence_count == 0)
                return;
        record = &books->evidence[books->evidence_count - 1];
        record->is_accepted = true;
        if (!device_cbor_expect(&reader, DEVICE_CBOR_MAP, &map))
                return;
        for (i = 0; i < map.value; i++) {
                struct device_cbor_reader before;

                if (!device_cbor_read_integer(&reader, &key))
                        return;
                before = reader;
                if (!device_cbor_read_integer(&reader, &value)) {
                        reader = before;
                        if (!device_cbor_skip(&reader))
                                return;
                        continue;
                }
                if (key == 0)
                        record->sequence = value;
                else if (key == 1)
                        record->tier = value;
        }
}

#define COUNTER(member) ((uint16_t)(offsetof(struct books, member) + 1))

/* What an event is called, and which counter it moves (0: none, or more than one). */
static const struct {
        const char *name;
        uint16_t counter; /* offset + 1 */
} kinds[] = {
        [DEVICE_EVENT_CONNECTED] = { "connected", COUNTER(handshakes) },
        [DEVICE_EVENT_REFUSED] = { "refused", COUNTER(refused) },
        [DEVICE_EVENT_NO_ANSWER] = { "no answer", COUNTER(unanswered) },
        [DEVICE_EVENT_LOST] = { "session lost", COUNTER(sessions_lost) },
        [DEVICE_EVENT_GRANTED] = { "granted", COUNTER(grants) },
        [DEVICE_EVENT_PROVEN] = { "proven", 0 },
        [DEVICE_EVENT_ME] = { "read /me", COUNTER(me_reads) },
        [DEVICE_EVENT_NOTIFIED] = { "notified", COUNTER(notifications) },
        [DEVICE_EVENT_OBSERVING] = { "observing", COUNTER(observations) },
        [DEVICE_EVENT_EVIDENCE_SENT] = { "evidence sent", COUNTER(evidence_sent) },
        [DEVICE_EVENT_EVIDENCE_ACCEPTED] = { "evidence accepted", COUNTER(evidence_accepted) },
        [DEVICE_EVENT_TIME] = { "time", 0 },
        [DEVICE_EVENT_ANCHORS] = { "anchors fetched", COUNTER(anchors_fetched) },
        [DEVICE_EVENT_ERROR] = { "error", COUNTER(errors) },
        [DEVICE_EVENT_UNUSABLE] = { "unusable reply", COUNTER(unusable) },
        [DEVICE_EVENT_UNANSWERED] = { "unanswered", COUNTER(requests_unanswered) },
        [DEVICE_EVENT_NOT_STORED] = { "not stored", 0 },
        [DEVICE_EVENT_LOCKED_OUT] = { "LOCKED OUT", COUNTER(lock_outs) },
};

static void count(struct books *books, enum device_event_kind kind) {
        uint64_t value;
        uint8_t *at;

        if (kinds[kind].counter == 0)
                return;
        at = (uint8_t *)books + kinds[kind].counter - 1;
        memcpy(&value, at, sizeof(value));
        value++;
        memcpy(at, &value, sizeof(value));
}

static const char *key_name(enum device_key_choice choice) {
        static const char *const names[] = { "factory", "newest", "new", "second" };

        return names[choice];
}

static void tell(const struct sim_device *device, const struct device_event *event) {
        size_t i;

        fprintf(stderr, "%10.3f %s: %s", (double)(real_ms() - device->sim->started_real) / 1000, device->identity.id,
                kinds[event->kind].name);
        if (event->kind <= DEVICE_EVENT_NO_ANSWER)
                fprintf(stderr, " (%s key)", key_name(event->choice));
        if (event->code != 0)
                fprintf(stderr, " /%s %u.%02u", event->path, event->code >> 5, event->code & 31U);
        else if (event->kind == DEVICE_EVENT_UNUSABLE || event->kind == DEVICE_EVENT_UNANSWERED)
                fprintf(stderr, " /%s", event->path);
        if (event->body.size > 0 && event->kind != DEVICE_EVENT_GRANTED && device->sim->options.verbose > 1) {
                fputc(' ', stderr); /* never a grant: it is a key */
                for (i = 0; i < event->body.size; i++)
                        fprintf(stderr, "%02x", event->body.data[i]);
        }
        fputc('\n', stderr);
}

void books_take(struct sim_device *device, const struct device_event *event) {
        struct books *books = &device->books;

        count(books, event->kind);
        if (event->kind == DEVICE_EVENT_CONNECTED && event->choice == DEVICE_KEY_SECOND)
                books->second_slot_used++;
        if (event->kind == DEVICE_EVENT_PROVEN && device->has_been_provisioned) {
                books->rotations++;
        } else if (event->kind == DEVICE_EVENT_PROVEN) { /* the first key replaces none */
                books->provisions++;
                device->has_been_provisioned = true;
        }
        if (event->kind == DEVICE_EVENT_EVIDENCE_SENT)
                take_evidence(books, event->body);
        if (event->kind == DEVICE_EVENT_EVIDENCE_ACCEPTED)
                take_acceptance(books, event->body);
        if (device->sim->options.verbose > 0)
                tell(device, event);
}

/* ---- showing ---- */

static const struct column {
        const char *name;
        size_t offset;
} columns[] = {
        { "grants", offsetof(struct books, grants) },
        { "provisions", offsetof(struct books, provisions) },
        { "rotations", offsetof(struct books, rotations) },
        { "anchors_fetched", offsetof(struct books, anchors_fetched) },
        { "handshakes", offsetof(struct books, handshakes) },
        { "refused", offsetof(struct books, refused) },
        { "unanswered", offsetof(struct books, unanswered) },
        { "evidence_sent", offsetof(struct books, evidence_sent) },
        { "evidence_accepted", offsetof(struct books, evidence_accepted) },
        { "me_reads", offsetof(struct books, me_reads) },
        { "notifications", offsetof(struct books, notifications) },
        { "observations", offsetof(struct books, observations) },
        { "errors", offsetof(struct books, errors) },
        { "unusable", offsetof(struct books, unusable) },
        { "requests_unanswered", offsetof(struct books, requests_unanswered) },
        { "sessions_lost", offsetof(struct books, sessions_lost) },
        { "reboots", offsetof(struct books, reboots) },
        { "lost_replies", offsetof(struct books, lost_replies) },
        { "factory_resets", offsetof(struct books, factory_resets) },
        { "second_slot_used", offsetof(struct books, second_slot_used) },
        { "lock_outs", offsetof(struct books, lock_outs) },
};

#define COLUMNS (sizeof(columns) / sizeof(columns[0]))

static uint64_t value_of(const struct books *books, const struct column *column) {
        uint64_t value;

        memcpy(&value, (const uint8_t *)books + column->offset, sizeof(value));
        return value;
}

static void write_counts(const struct books *books, FILE *to) {
        size_t i;

        for (i = 0; i < COLUMNS; i++)
                fprintf(to, "\"%s\":%" PRIu64 ",", columns[i].name, value_of(books, &columns[i]));
}

static void write_hex(const uint8_t *data, size_t size, FILE *to) {
        size_t i;

        for (i = 0; i < size; i++)
                fprintf(to, "%02x", data[i]);
}

static void write_evidence(const struct books *books, FILE *to) {
        size_t i;

        fputs(",\"evidence\":[", to);
        for (i = 0; i < books->evidence_count; i++) {
                const struct evidence_record *record = &books->evidence[i];

                fprintf(to, "%s{\"nonce\":\"", i ? "," : "");
                write_hex(record->nonce, sizeof(record->nonce), to);
                fputs("\",\"sha256\":\"", to);
                write_hex(record->digest, sizeof(record->digest), to);
                fprintf(to, "\",\"accepted\":%s", record->is_accepted ? "true" : "false");
                if (record->tier >= 0)
                        fprintf(to, ",\"tier\":%" PRId64, record->tier);
                if (record->sequence >= 0)
                        fprintf(to, ",\"sequence\":%" PRId64, record->sequence);
                fputc('}', to);
        }
        fputc(']', to);
}

/* Text of printable ASCII as a JSON string: identities are. */
static void write_identity(const struct device_key *key, FILE *to) {
        uint8_t i;

        fputc('"', to);
        for (i = 0; i < key->identity_size; i++)
                if (key->identity[i] < 0x20 || key->identity[i] > 0x7e || strchr("\"\\", key->identity[i]))
                        fprintf(to, "\\u%04x", key->identity[i]);
                else
                        fputc(key->identity[i], to);
        fputc('"', to);
}

static void write_device(const struct sim_device *device, FILE *to, bool with_evidence) {
        const char *key = !device_is_operational(&device->device) ? "factory" : "operational";

        fprintf(to, "{\"id\":\"%s\",", device->identity.id);
        write_counts(&device->books, to);
        fprintf(to, "\"ready_ms\":%" PRIu64 ",\"holds\":\"%s\",\"key\":\"%s\",\"identity\":", device->books.ready_ms,
                device->identity.idevid_size > 0 ? "certificate" : "psk", key);
        write_identity(device_current_key(&device->device), to);
        fprintf(to, ",\"online\":%s,\"settled\":%s,\"locked_out\":%s,\"powered\":%s",
                device_is_online(&device->device) ? "true" : "false", device->is_settled ? "true" : "false",
                device_is_locked_out(&device->device) ? "true" : "false", device->is_off ? "false" : "true");
        if (with_evidence)
                write_evidence(&device->books, to);
        fputc('}', to);
}

static void sum(const struct sim *sim, struct books *total, unsigned *ready, unsigned *locked_out) {
        uint64_t value, more;
        unsigned i;
        size_t c;

        memset(total, 0, sizeof(*total));
        *ready = *locked_out = 0;
        for (i = 0; i < sim->count; i++) {
                const struct books *books = &sim->devices[i].books;

                for (c = 0; c < COLUMNS; c++) {
                        value = value_of(total, &columns[c]);
                        more = value_of(books, &columns[c]);
                        value += more;
                        memcpy((uint8_t *)total + columns[c].offset, &value, sizeof(value));
                }
                *ready += books->ready_ms > 0;
                *locked_out += device_is_locked_out(&sim->devices[i].device);
                if (books->ready_ms > total->ready_ms)
                        total->ready_ms = books->ready_ms;
        }
}

void books_write_json(const struct sim *sim, FILE *to, bool with_devices, bool with_evidence) {
        unsigned i, ready, locked_out;
        struct books total;

        sum(sim, &total, &ready, &locked_out);
        fprintf(to, "{\"ok\":true,\"devices\":%u,\"settled\":%u,\"ready\":%u,\"locked_out\":%u,", sim->count,
                sim->settled, ready, locked_out);
        fprintf(to, "\"seconds\":%.3f,\"clock_offset\":%" PRId64 ",\"datagrams_lost\":%" PRIu64 ",\"total\":{",
                (double)(real_ms() - sim->started_real) / 1000, test_clock_offset(&sim->clock),
                sim->session_settings.datagrams_lost);
        write_counts(&total, to);
        fprintf(to, "\"ready_ms\":%" PRIu64 "}", total.ready_ms);
        if (with_devices) {
                fputs(",\"fleet\":[", to);
                for (i = 0; i < sim->count; i++) {
                        if (i > 0)
                                fputc(',', to);
                        write_device(&sim->devices[i], to, with_evidence);
                }
                fputc(']', to);
        }
        fputs("}\n", to);
}

static int by_ready(const void *a, const void *b) {
        uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

        return x < y ? -1 : x > y;
}

static void write_ready_times(const struct sim *sim, FILE *to) {
        uint64_t *times = calloc(sim->count, sizeof(*times));
        unsigned i, n = 0;

        if (!times)
                return;
        for (i = 0; i < sim->count; i++)
                if (sim->devices[i].books.ready_ms > 0)
                        times[n++] = sim->devices[i].books.ready_ms;
        qsort(times, n, sizeof(*times), by_ready);
        if (n > 0)
                fprintf(to, "  %-22s median %" PRIu64 " ms, 95 %% within %" PRIu64 " ms, all within %" PRIu64 " ms\n",
                        "time to ready", times[n / 2], times[(n - 1) * 95 / 100], times[n - 1]);
        free(times);
}

void books_write_table(const struct sim *sim, FILE *to) {
        unsigned ready, locked_out, i;
        struct books total;
        char name[32];
        size_t c;

        sum(sim, &total, &ready, &locked_out);
        fprintf(to, "%u devices: %u ready, %u settled now, %u locked out\n", sim->count, ready, sim->settled,
                locked_out);
        for (c = 0; c < COLUMNS; c++) {
                for (i = 0; columns[c].name[i]; i++)
                        name[i] = columns[c].name[i] == '_' ? ' ' : columns[c].name[i];
                name[i] = 0;
                fprintf(to, "  %-22s %" PRIu64 "\n", name, value_of(&total, &columns[c]));
        }
        write_ready_times(sim, to);
}

void books_free(struct books *books) {
        free(books->evidence);
        books->evidence = NULL;
        books->evidence_count = 0;
}
