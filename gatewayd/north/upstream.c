/* SPDX-License-Identifier: Apache-2.0 */

/* libcurl's multi interface in an sd-event loop, with everything that libcurl would do unasked turned
 * off: redirects, other protocols, proxies from the environment, files. */

#include "gatewayd/north/upstream.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>

#include <curl/curl.h>

#include "gatewayd/north/files.h"

#define CONNECT_TIMEOUT_SEC 10

/* A socket of libcurl's and its place in the loop. */
struct watch {
        struct watch *next;
        sd_event_source *source;
};

struct upstream {
        sd_event *event;
        upstream_handler handler;
        void *userdata;

        CURLM *multi;
        CURL *easy;
        struct watch *watches;
        sd_event_source *timer;

        struct tls_files files;
        char *gateway_header, *incarnation_header;

        bool is_busy, wants_new_connection;
        struct buffer body;
        struct curl_slist *headers;
        struct buffer reply;
        size_t header_bytes;
        bool is_too_long;
        char error[CURL_ERROR_SIZE];
};

static void drive(struct upstream *upstream, curl_socket_t fd, int events);

static int on_socket(sd_event_source *source, int fd, uint32_t revents, void *userdata) {
        int events = 0;

        (void)source;
        if (revents & (EPOLLIN | EPOLLHUP))
                events |= CURL_CSELECT_IN;
        if (revents & EPOLLOUT)
                events |= CURL_CSELECT_OUT;
        if (revents & EPOLLERR)
                events |= CURL_CSELECT_ERR;
        drive(userdata, fd, events);
        return 0;
}

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata) {
        (void)source;
        (void)usec;
        drive(userdata, CURL_SOCKET_TIMEOUT, 0);
        return 0;
}

static void watch_remove(struct upstream *upstream, struct watch *watch) {
        struct watch **place = &upstream->watches;

        while (*place && *place != watch)
                place = &(*place)->next;
        if (*place)
                *place = watch->next;
        sd_event_source_disable_unref(watch->source);
        free(watch);
}

/* libcurl says what to wait for on a socket. */
static int watch_socket(CURL *easy, curl_socket_t fd, int what, void *userdata, void *socket) {
        struct upstream *upstream = userdata;
        struct watch *watch = socket;
        uint32_t events =
                (what & CURL_POLL_IN ? (uint32_t)EPOLLIN : 0) | (what & CURL_POLL_OUT ? (uint32_t)EPOLLOUT : 0);

        (void)easy;
        if (what == CURL_POLL_REMOVE) {
                if (watch)
                        watch_remove(upstream, watch);
                return 0;
        }
        if (watch)
                return sd_event_source_set_io_events(watch->source, events) < 0 ? -1 : 0;

        watch = xcalloc(1, sizeof *watch);
        if (sd_event_add_io(upstream->event, &watch->source, fd, events, on_socket, upstream) < 0) {
                free(watch);
                return -1;
        }
        watch->next = upstream->watches;
        upstream->watches = watch;
        (void)curl_multi_assign(upstream->multi, fd, watch);
        return 0;
}

/* libcurl says when to call it at the latest. */
static int watch_timeout(CURLM *multi, long timeout_msec, void *userdata) {
        struct upstream *upstream = userdata;

        (void)multi;
        if (timeout_msec < 0)
                return sd_event_source_set_enabled(upstream->timer, SD_EVENT_OFF) < 0 ? -1 : 0;
        if (sd_event_source_set_time_relative(upstream->timer, (uint64_t)timeout_msec * 1000) < 0)
                return -1;
        return sd_event_source_set_enabled(upstream->timer, SD_EVENT_ONESHOT) < 0 ? -1 : 0;
}

static size_t take_body(char *data, size_t one, size_t size, void *userdata) {
        struct upstream *upstream = userdata;

        (void)one;
        if (upstream->reply.size + size > UPSTREAM_REPLY_MAX) {
                upstream->is_too_long = true;
                return 0;
        }
        buffer_append(&upstream->reply, BYTES(data, size));
        return size;
}

static size_t take_header(char *data, size_t one, size_t size, void *userdata) {
        struct upstream *upstream = userdata;

        (void)data;
        (void)one;
        upstream->header_bytes += size;
        if (upstream->header_bytes > UPSTREAM_REPLY_MAX) {
                upstream->is_too_long = true;
                return 0;
        }
        return size;
}

/* ---- what an exchange gave ---- */

static bool is_of_type(const char *type, const char *wanted) {
        size_t size = strlen(wanted);

        return type && strncasecmp(type, wanted, size) == 0 &&
               (type[size] == 0 || type[size] == ';' || type[size] == ' ');
}

/* The first line of what a collector says about a refusal, as far as it is plain text. */
static void quote_reply(const struct upstream *upstream, char *to, size_t to_size) {
        size_t size = 0;

        for (; size < upstream->reply.size && size + 1 < to_size; size++) {
                uint8_t c = upstream->reply.data[size];

                if (c < ' ' || c > '~')
                        break;
                to[size] = (char)c;
        }
        to[size] = 0;
}

static void explain_status(const struct upstream *upstream, struct upstream_answer *answer) {
        char *type = NULL, quoted[100];

        if (answer->status >= 200 && answer->status < 300)
                return;
        if (answer->status >= 300 && answer->status < 400) {
                snprintf(answer->reason, sizeof answer->reason, "HTTP %u: redirects are not followed", answer->status);
                return;
        }
        quote_reply(upstream, quoted, sizeof quoted);
        (void)curl_easy_getinfo(upstream->easy, CURLINFO_CONTENT_TYPE, &type);
        if (quoted[0] && (is_of_type(type, "text/plain") || is_of_type(type, "application/json") ||
                          is_of_type(type, "application/problem+json")))
                snprintf(answer->reason, sizeof answer->reason, "HTTP %u: %s", answer->status, quoted);
        else
                snprintf(answer->reason, sizeof answer->reason, "HTTP %u", answer->status);
}

/* TLS and the resolver say more than their code; the other texts hold numbers that change each time. A
 * peer that refuses our certificate says so while we send or receive. */
static bool says_more(CURLcode code, const char *error) {
        switch (code) {
        case CURLE_PEER_FAILED_VERIFICATION:
        case CURLE_SSL_CONNECT_ERROR:
        case CURLE_SSL_CERTPROBLEM:
        case CURLE_SSL_CIPHER:
        case CURLE_COULDNT_RESOLVE_HOST:
                return error[0] != 0;
        case CURLE_SEND_ERROR:
        case CURLE_RECV_ERROR:
                return strstr(error, "SSL") != NULL;
        default:
                return false;
        }
}

static void explain_failure(const struct upstream *upstream, CURLcode code, struct upstream_answer *answer) {
        snprintf(answer->reason, sizeof answer->reason, "%.159s",
                 says_more(code, upstream->error) ? upstream->error : curl_easy_strerror(code));
        for (char *c = answer->reason; *c; c++)
                if (*c < ' ' || *c > '~')
                        *c = ' ';
}

static void read_answer(struct upstream *upstream, CURLcode code, struct upstream_answer *answer) {
        long status = 0;
        curl_off_t retry_after = 0;
        char *type = NULL;

        (void)curl_easy_getinfo(upstream->easy, CURLINFO_RESPONSE_CODE, &status);
        (void)curl_easy_getinfo(upstream->easy, CURLINFO_RETRY_AFTER, &retry_after);
        answer->retry_after_sec = retry_after > 0 ? (int64_t)retry_after : 0;

        /* A refusal is one, however much is said about it; anything else must have come whole. */
        if (code == CURLE_OK || (upstream->is_too_long && status >= 400)) {
                answer->status = status > 0 && status < 1000 ? (uint16_t)status : 0;
                explain_status(upstream, answer);
        } else if (upstream->is_too_long || code == CURLE_FILESIZE_EXCEEDED)
                snprintf(answer->reason, sizeof answer->reason, "the reply is longer than %u KiB",
                         UPSTREAM_REPLY_MAX / 1024);
        else
                explain_failure(upstream, code, answer);

        (void)curl_easy_getinfo(upstream->easy, CURLINFO_CONTENT_TYPE, &type);
        if (answer->status >= 200 && answer->status < 300 && is_of_type(type, "application/cbor"))
                answer->results = buffer_bytes(&upstream->reply);
}

static void finish(struct upstream *upstream) {
        (void)curl_multi_remove_handle(upstream->multi, upstream->easy);
        curl_slist_free_all(upstream->headers);
        upstream->headers = NULL;
        buffer_free(&upstream->body);
        upstream->is_busy = false;
}

static void drive(struct upstream *upstream, curl_socket_t fd, int events) {
        int running, left;
        CURLMsg *message;

        (void)curl_multi_socket_action(upstream->multi, fd, events, &running);
        while ((message = curl_multi_info_read(upstream->multi, &left))) {
                struct upstream_answer answer = { 0 };

                if (message->msg != CURLMSG_DONE)
                        continue;
                read_answer(upstream, message->data.result, &answer);
                finish(upstream);
                upstream->wants_new_connection = answer.status == 0;
                upstream->handler(upstream->userdata, &answer);
        }
}

/* ---- set-up ---- */

static CURLcode set_blob(CURL *easy, CURLoption option, void *data, size_t size) {
        struct curl_blob blob = { .data = data, .len = size, .flags = CURL_BLOB_NOCOPY };

        return curl_easy_setopt(easy, option, &blob);
}

static bool set_tls(CURL *easy, const struct tls_files *files) {
        return curl_easy_setopt(easy, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2) == CURLE_OK &&
               curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 1L) == CURLE_OK &&
               curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 2L) == CURLE_OK &&
               /* libcurl would add the system's folder of anchors to those given. */
               curl_easy_setopt(easy, CURLOPT_CAPATH, NULL) == CURLE_OK &&
               set_blob(easy, CURLOPT_CAINFO_BLOB, files->anchors.data, files->anchors.size) == CURLE_OK &&
               set_blob(easy, CURLOPT_SSLCERT_BLOB, files->certificate.data, files->certificate.size) == CURLE_OK &&
               set_blob(easy, CURLOPT_SSLKEY_BLOB, files->key, files->key_size) == CURLE_OK;
}

static bool set_http(struct upstream *upstream, const struct north_config *config) {
        CURL *easy = upstream->easy;
        long timeout = config->timeout_sec > 0 ? (long)config->timeout_sec : 30;

        return curl_easy_setopt(easy, CURLOPT_URL, config->url) == CURLE_OK &&
               curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "https") == CURLE_OK &&
               curl_easy_setopt(easy, CURLOPT_DISALLOW_USERNAME_IN_URL, 1L) == CURLE_OK &&
               curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L) == CURLE_OK &&
               curl_easy_setopt(easy, CURLOPT_PROXY, "") == CURLE_OK &&
               curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1) == CURLE_OK &&
               curl_easy_setopt(easy, CURLOPT_HTTP09_ALLOWED, 0L) == CURLE_OK &&
               curl_easy_setopt(easy, CURLOPT_POST, 1L) == CURLE_OK &&
               curl_easy_setopt(easy, CURLOPT_USERAGENT, "gatewayd/" GATEWAYD_VERSION) == CURLE_OK &&
               curl_easy_setopt(easy, CURLOPT_TIMEOUT, timeout) == CURLE_OK &&
               curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT,
                                timeout < CONNECT_TIMEOUT_SEC ? timeout : CONNECT_TIMEOUT_SEC) == CURLE_OK &&
               curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L) == CURLE_OK &&
               /* A resolver that hangs must not hang the loop with it. */
               curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L) == CURLE_OK &&
               curl_easy_setopt(easy, CURLOPT_MAXFILESIZE_LARGE, (curl_off_t)UPSTREAM_REPLY_MAX) == CURLE_OK &&
               curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, take_body) == CURLE_OK &&
               curl_easy_setopt(easy, CURLOPT_WRITEDATA, upstream) == CURLE_OK &&
               curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, take_header) == CURLE_OK &&
               curl_easy_setopt(easy, CURLOPT_HEADERDATA, upstream) == CURLE_OK &&
               curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, upstream->error) == CURLE_OK;
}

static int open_handles(struct upstream *upstream, const struct north_config *config) {
        if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
                return -ENOMEM;
        upstream->multi = curl_multi_init();
        upstream->easy = curl_easy_init();
        if (!upstream->multi || !upstream->easy)
                return -ENOMEM;
        if (curl_multi_setopt(upstream->multi, CURLMOPT_SOCKETFUNCTION, watch_socket) != CURLM_OK ||
            curl_multi_setopt(upstream->multi, CURLMOPT_SOCKETDATA, upstream) != CURLM_OK ||
            curl_multi_setopt(upstream->multi, CURLMOPT_TIMERFUNCTION, watch_timeout) != CURLM_OK ||
            curl_multi_setopt(upstream->multi, CURLMOPT_TIMERDATA, upstream) != CURLM_OK)
                return -EOPNOTSUPP;
        if (!set_http(upstream, config) || !set_tls(upstream->easy, &upstream->files))
                return -EOPNOTSUPP; /* a libcurl that cannot do it safely does not do it */
        return 0;
}

int upstream_port(const char *url) {
        CURLU *parts = curl_url();
        char *scheme = NULL, *port = NULL;
        int r = -EINVAL;

        if (parts && curl_url_set(parts, CURLUPART_URL, url, CURLU_DISALLOW_USER) == CURLUE_OK &&
            curl_url_get(parts, CURLUPART_SCHEME, &scheme, 0) == CURLUE_OK && strcmp(scheme, "https") == 0 &&
            curl_url_get(parts, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT) == CURLUE_OK)
                r = atoi(port);
        curl_free(scheme);
        curl_free(port);
        curl_url_cleanup(parts);
        return r > 0 && r < 65536 ? r : -EINVAL;
}

int upstream_new(sd_event *event, const struct north_config *config, upstream_handler handler, void *userdata,
                 struct upstream **ret, struct problem *problem) {
        struct upstream *upstream;
        int r;

        if (upstream_port(config->url) < 0)
                return problem_set(problem, CODE_INTERNAL, EINVAL, "upstream address",
                                   "north.url: \"%s\" is not a URL that begins with https:// and has no user in it",
                                   config->url);
        upstream = xcalloc(1, sizeof *upstream);
        upstream->event = sd_event_ref(event);
        upstream->handler = handler;
        upstream->userdata = userdata;

        r = tls_files_read(config, &upstream->files, problem);
        if (r >= 0) {
                r = sd_event_add_time_relative(event, &upstream->timer, CLOCK_MONOTONIC, 0, 1, on_timer, upstream);
                if (r >= 0)
                        r = sd_event_source_set_enabled(upstream->timer, SD_EVENT_OFF);
                if (r >= 0)
                        r = open_handles(upstream, config);
                if (r < 0)
                        problem_set(problem, CODE_INTERNAL, -r, "upstream", "libcurl could not be set up: %s",
                                    strerror(-r));
        }
        if (r < 0) {
                upstream_free(upstream);
                return r;
        }
        *ret = upstream;
        return 0;
}

struct upstream *upstream_free(struct upstream *upstream) {
        if (!upstream)
                return NULL;
        if (upstream->is_busy)
                finish(upstream);
        curl_easy_cleanup(upstream->easy);
        curl_multi_cleanup(upstream->multi);
        while (upstream->watches)
                watch_remove(upstream, upstream->watches);
        sd_event_source_disable_unref(upstream->timer);
        tls_files_free(&upstream->files);
        buffer_free(&upstream->reply);
        free(upstream->gateway_header);
        free(upstream->incarnation_header);
        sd_event_unref(upstream->event);
        free(upstream);
        return NULL;
}

void upstream_identify(struct upstream *upstream, const char *gateway_id, const char *incarnation) {
        char *one = NULL, *two = NULL;

        if (asprintf(&one, "Gatewayd-Id: %s", gateway_id) < 0 ||
            asprintf(&two, "Gatewayd-Incarnation: %s", incarnation) < 0)
                oom();
        free(upstream->gateway_header);
        free(upstream->incarnation_header);
        upstream->gateway_header = one;
        upstream->incarnation_header = two;
}

static void add_header(struct upstream *upstream, const char *line) {
        struct curl_slist *headers = line ? curl_slist_append(upstream->headers, line) : upstream->headers;

        if (line && !headers)
                oom();
        upstream->headers = headers;
}

int upstream_post(struct upstream *upstream, const char *key, struct buffer *body) {
        char idempotency[128];
        CURL *easy = upstream->easy;

        if (upstream->is_busy)
                return -EBUSY;
        upstream->body = *body;
        *body = (struct buffer){ 0 };
        upstream->reply.size = 0;
        upstream->header_bytes = 0;
        upstream->is_too_long = false;
        upstream->error[0] = 0;

        add_header(upstream, "Content-Type: application/cbor");
        add_header(upstream, "Accept: application/cbor");
        add_header(upstream, "Expect:"); /* no round trip before the body */
        add_header(upstream, upstream->gateway_header);
        add_header(upstream, upstream->incarnation_header);
        if (key) {
                snprintf(idempotency, sizeof idempotency, "Idempotency-Key: %s", key);
                add_header(upstream, idempotency);
        }
        if (curl_easy_setopt(easy, CURLOPT_HTTPHEADER, upstream->headers) != CURLE_OK ||
            curl_easy_setopt(easy, CURLOPT_POSTFIELDS, upstream->body.data) != CURLE_OK ||
            curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)upstream->body.size) != CURLE_OK ||
            curl_easy_setopt(easy, CURLOPT_FRESH_CONNECT, upstream->wants_new_connection ? 1L : 0L) != CURLE_OK ||
            curl_multi_add_handle(upstream->multi, easy) != CURLM_OK) {
                finish(upstream);
                return -ENOMEM;
        }
        upstream->is_busy = true;
        return 0;
}

void upstream_reconnect(struct upstream *upstream) {
        upstream->wants_new_connection = true;
}
