/* SPDX-License-Identifier: Apache-2.0 */

/* The whole product in one table: which resource, which method, who may, which handler. The handlers
 * live in the rooms of their subjects; here are only the two that belong to no room. */

#include "gatewayd/exchange.h"

#include <errno.h>

#include "gatewayd/cbor.h"
#include "gatewayd/devices/devices.h"

/* EST has two roots, /est and /.well-known/est, and takes a label, the name of a profile, between root and
 * function (RFC 9148 §4.1): four paths for what the table has as one. */
#define EST_ROOT            "est/"
#define EST_ROOT_WELL_KNOWN ".well-known/est/"

/* When to try again what could not be stored. */
#define NOT_STORED_SEC 60

struct exchange_entry {
        const char *path; /* what begins with EST_ROOT stands for all four */
        uint8_t method;
        enum resource resource;
        exchange_handler handle;
        const char *link; /* RFC 6690 attributes; NULL: not listed (a second method of a listed path) */
};

/* A table is read by its columns. */
/* clang-format off */
static const struct exchange_entry table[] = {
        { ".well-known/core", CODE_GET,  RESOURCE_CORE,      handle_core_links, "ct=40" },
        { "cred",             CODE_POST, RESOURCE_CRED,      handle_cred,       "rt=\"gatewayd.cred\";ct=\"601 101 0\"" },
        { "crl",              CODE_GET,  RESOURCE_CRL,       handle_crl,        "rt=\"gatewayd.crl\";ct=42" },
        { "est/crts",         CODE_GET,  RESOURCE_EST_CRTS,  handle_est_crts,   "rt=\"ace.est.crts\";ct=\"281 287\"" },
        { "est/sen",          CODE_POST, RESOURCE_EST_ENROL, handle_est_sen,    "rt=\"ace.est.sen\";ct=\"281 287\"" },
        { "est/sren",         CODE_POST, RESOURCE_EST_RENEW, handle_est_sren,   "rt=\"ace.est.sren\";ct=\"281 287\"" },
        { "est/att",          CODE_GET,  RESOURCE_EST_ATT,   handle_est_att,    "rt=\"ace.est.att\";ct=285" },
        { "est/skg",          CODE_POST, RESOURCE_EST_ENROL, handle_est_skg,    "rt=\"ace.est.skg\";ct=62" },
        { "est/skc",          CODE_POST, RESOURCE_EST_ENROL, handle_est_skc,    "rt=\"ace.est.skc\";ct=62" },
        { "me",               CODE_GET,  RESOURCE_ME,        handle_me,         "rt=\"gatewayd.me\";ct=60;obs" },
        { "rats/nonce",       CODE_POST, RESOURCE_RATS,      handle_nonce,      "rt=\"gatewayd.rats.nonce\";ct=\"60 42\"" },
        { "rats/evidence",    CODE_POST, RESOURCE_RATS,      handle_evidence,   "rt=\"gatewayd.rats.evidence\";ct=60" },
        { "rats/result",      CODE_GET,  RESOURCE_RATS,      handle_result,     "rt=\"gatewayd.rats.result\";ct=60;obs" },
        { "time",             CODE_GET,  RESOURCE_TIME,      handle_time,       "rt=\"gatewayd.time\";ct=60" },
};
/* clang-format on */

static bool take_prefix(struct bytes *path, struct bytes prefix) {
        if (path->size < prefix.size || memcmp(path->data, prefix.data, prefix.size) != 0)
                return false;
        *path = BYTES(path->data + prefix.size, path->size - prefix.size);
        return true;
}

/* A path as the table writes it, and the label that was in it. */
struct place {
        struct bytes path;  /* of an EST resource: behind the root */
        struct bytes label; /* data NULL: none */
        bool is_est;
};

static struct place place_of(struct bytes path) {
        struct place place = { .path = path };
        const uint8_t *slash;

        if (!take_prefix(&place.path, TEXT(EST_ROOT)) && !take_prefix(&place.path, TEXT(EST_ROOT_WELL_KNOWN)))
                return place;
        place.is_est = true;
        slash = place.path.size > 0 ? memchr(place.path.data, '/', place.path.size) : NULL;
        if (slash) {
                place.label = BYTES(place.path.data, (size_t)(slash - place.path.data));
                place.path = BYTES(slash + 1, place.path.size - place.label.size - 1);
        }
        return place;
}

static bool entry_is_at(const struct exchange_entry *entry, const struct place *place) {
        struct bytes path = bytes_of(entry->path);

        return take_prefix(&path, TEXT(EST_ROOT)) == place->is_est && bytes_equal(path, place->path);
}

/* A label says which profile the client believes to have: another one than the device's is not there for it. */
static int check_label(const struct place *place, const struct identity *from, struct problem *problem) {
        if (!place->label.data || bytes_equal(place->label, bytes_of(from->device.profile)))
                return 0;
        return problem_set(problem, CODE_NOT_FOUND, ENOENT, "not found",
                           "the label in this path is not the profile of this device, which is %s; leave it out",
                           from->device.profile);
}

static int find_entry(const struct request *request, const struct exchange_entry **ret, struct problem *problem) {
        const struct place place = place_of(request->path);
        bool is_path_known = false;

        for (size_t i = 0; i < ELEMENTS(table); i++) {
                if (!entry_is_at(&table[i], &place))
                        continue;
                is_path_known = true;
                if (table[i].method == request->method) {
                        *ret = &table[i];
                        return check_label(&place, request->from, problem);
                }
        }
        if (is_path_known)
                return problem_set(problem, CODE_METHOD_NOT_ALLOWED, EOPNOTSUPP, "method not allowed",
                                   "this resource has no such method; /.well-known/core lists what there is");
        return problem_set(problem, CODE_NOT_FOUND, ENOENT, "not found",
                           "there is no such resource; /.well-known/core lists what there is");
}

int exchange_authorise(struct turn *turn, const struct request *request, const struct exchange_entry **ret,
                       struct problem *problem) {
        const struct lifecycle_view view = lifecycle_view_of(request->from);
        int r;

        r = find_entry(request, ret, problem);
        if (r < 0)
                return r;
        return lifecycle_allows(&view, (*ret)->resource, request->method, &turn->now, problem);
}

void problem_not_stored(struct problem *problem, int error) {
        problem_set(problem, CODE_UNAVAILABLE, error < 0 ? -error : error, "storage full",
                    "the gateway cannot store anything now; keep what you have and try again");
        problem->max_age_sec = NOT_STORED_SEC;
}

void reply_problem(struct reply *reply, const struct problem *problem) {
        buffer_free(&reply->payload);
        reply->code = problem->code ? problem->code : CODE_INTERNAL;
        reply->content_format = FORMAT_PROBLEM;
        reply->max_age_sec = problem->max_age_sec > 0 ? problem->max_age_sec : -1;
        reply->size1 = problem->size1;
        reply->is_observed = false;
        problem_to_cbor(problem, &reply->payload);
}

void exchange_handle(struct turn *turn, const struct exchange_entry *entry, const struct request *request,
                     struct reply *reply) {
        struct problem problem = { 0 };
        size_t mark = turn_mark(turn);
        int r;

        r = store_savepoint(turn->store);
        if (r >= 0) {
                r = entry->handle(turn, request, reply, &problem);
                if (r >= 0) {
                        r = store_savepoint_release(turn->store);
                        if (r >= 0)
                                return;
                } else
                        (void)store_savepoint_rollback(turn->store); /* its failure shows at the commit */
        }
        turn_rewind(turn, mark);
        if (problem.code == 0 && store_error_passes(r))
                problem_not_stored(&problem, r);
        else if (problem.code == 0)
                problem_set(&problem, CODE_INTERNAL, -r, "internal error", "the gateway could not do this: %s",
                            strerror(-r));
        reply_problem(reply, &problem);
}

/* One attribute of a link and a filter's value: equal, or equal up to a trailing '*'; a quoted attribute
 * is a list of words (RFC 6690 §4.1). */
static bool word_matches(struct bytes word, struct bytes wanted) {
        if (wanted.size > 0 && wanted.data[wanted.size - 1] == '*')
                return word.size >= wanted.size - 1 && memcmp(word.data, wanted.data, wanted.size - 1) == 0;
        return bytes_equal(word, wanted);
}

static bool attribute_matches(const char *link, struct bytes name, struct bytes wanted) {
        for (const char *p = link; p && *p; p = strchr(p, ';') ? strchr(p, ';') + 1 : NULL) {
                const char *value;
                size_t size;

                if (!bytes_equal(BYTES(p, strcspn(p, "=;")), name) || p[name.size] != '=')
                        continue; /* the name may be any bytes, of any length */
                value = p + name.size + 1;
                if (*value != '"')
                        return word_matches(BYTES(value, strcspn(value, ";")), wanted);
                for (value++; *value != '"' && *value; value += size + (value[size] == ' ')) {
                        size = strcspn(value, " \"");
                        if (word_matches(BYTES(value, size), wanted))
                                return true;
                }
        }
        return false;
}

static bool filter_matches(const struct exchange_entry *entry, struct bytes query) {
        const uint8_t *equals = query.size > 0 ? memchr(query.data, '=', query.size) : NULL;
        struct bytes name, wanted;
        char target[64];

        if (!equals)
                return true;
        name = BYTES(query.data, (size_t)(equals - query.data));
        wanted = BYTES(equals + 1, query.size - name.size - 1);
        if (bytes_equal(name, TEXT("href"))) {
                snprintf(target, sizeof target, "/%s", entry->path);
                return word_matches(bytes_of(target), wanted);
        }
        return attribute_matches(entry->link, name, wanted);
}

int handle_core_links(struct turn *turn, const struct request *request, struct reply *reply, struct problem *problem) {
        (void)turn;
        if (request->accept != FORMAT_NONE && request->accept != FORMAT_LINK)
                return problem_set(problem, CODE_NOT_ACCEPTABLE, EPROTONOSUPPORT, "not acceptable",
                                   "links come as application/link-format (40)");
        for (size_t i = 0; i < ELEMENTS(table); i++) {
                if (!table[i].link || !filter_matches(&table[i], request->query))
                        continue;
                buffer_printf(&reply->payload, "%s</%s>;%s", reply->payload.size > 0 ? "," : "", table[i].path,
                              table[i].link);
        }
        reply->code = CODE_CONTENT;
        reply->content_format = FORMAT_LINK;
        reply->max_age_sec = 86400;
        return 0;
}

int handle_time(struct turn *turn, const struct request *request, struct reply *reply, struct problem *problem) {
        uint32_t called = schedule_called(&request->from->device);

        if (request->accept != FORMAT_NONE && request->accept != FORMAT_CBOR)
                return problem_set(problem, CODE_NOT_ACCEPTABLE, EPROTONOSUPPORT, "not acceptable",
                                   "the time comes as application/cbor (60)");
        cbor_put_map(&reply->payload, 2 + schedule_called_members(called));
        cbor_put_uint(&reply->payload, 1);
        cbor_put_int(&reply->payload, turn->now.wall);
        cbor_put_uint(&reply->payload, 2);
        cbor_put_uint(&reply->payload, (uint64_t)turn->now.quality);
        schedule_called_put(called, &reply->payload);
        reply->code = CODE_CONTENT;
        reply->content_format = FORMAT_CBOR;
        reply->max_age_sec = 0;
        return 0;
}
