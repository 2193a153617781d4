/* SPDX-License-Identifier: Apache-2.0 */

/* libcurl's multi interface in an sd-event loop, with everything that libcurl would do unasked turned
 * off: redirects, other protocols, proxies from the environment, files. */

#include "gatewayd/north/https.h"

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

/* What exchanges use as long as they last, also when a renewed certificate has come meanwhile. */
struct credentials {
        struct tls_files files;
        unsigned users;
};

struct https {
        sd_event *event;
        CURLM *multi;
        struct watch *watches;
        sd_event_source *timer;
        struct credentials *credentials;
        long timeout_sec;
};

struct https_exchange {
        struct https *https;
        struct credentials *credentials;
        https_handler handler;
        void *userdata;
        CURL *easy;
        bool is_added;
        struct buffer body, reply;
        struct curl_slist *headers;
        size_t header_bytes;
        bool is_too_long;
        time_t date;          /* the server's own clock; -1: not said */
        char retry_after[64]; /* as sent */
        char error[CURL_ERROR_SIZE];
};

static void drive(struct https *https, curl_socket_t fd, int events);

static struct credentials *credentials_unref(struct credentials *credentials) {
        if (credentials && --credentials->users == 0) {
                tls_files_free(&credentials->files);
                free(credentials);
        }
        return NULL;
}

static struct credentials *credentials_ref(struct credentials *credentials) {
        credentials->users++;
        return credentials;
}

static struct credentials *credentials_new(const struct tls_files *files) {
        struct credentials *credentials = xcalloc(1, sizeof *credentials);

        credentials->files = *files;
        credentials->users = 1;
        return credentials;
}

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

static void watch_remove(struct https *https, struct watch *watch) {
        struct watch **place = &https->watches;

        while (*place && *place != watch)
                place = &(*place)->next;
        if (*place)
                *place = watch->next;
        sd_event_source_disable_unref(watch->source);
        free(watch);
}

/* libcurl says what to wait for on a socket. */
static int watch_socket(CURL *easy, curl_socket_t fd, int what, void *userdata, void *socket) {
        struct https *https = userdata;
        struct watch *watch = socket;
        uint32_t events =
                (what & CURL_POLL_IN ? (uint32_t)EPOLLIN : 0) | (what & CURL_POLL_OUT ? (uint32_t)EPOLLOUT : 0);

        (void)easy;
        if (what == CURL_POLL_REMOVE) {
                if (watch)
                        watch_remove(https, watch);
                return 0;
        }
        if (watch)
                return sd_event_source_set_io_events(watch->source, events) < 0 ? -1 : 0;

        watch = xcalloc(1, sizeof *watch);
        if (sd_event_add_io(https->event, &watch->source, fd, events, on_socket, https) < 0) {
                free(watch);
                return -1;
        }
        watch->next = https->watches;
        https->watches = watch;
        (void)curl_multi_assign(https->multi, fd, watch);
        return 0;
}

/* libcurl says when to call it at the latest. */
static int watch_timeout(CURLM *multi, long timeout_msec, void *userdata) {
        struct https *https = userdata;

        (void)multi;
        if (timeout_msec < 0)
                return sd_event_source_set_enabled(https->timer, SD_EVENT_OFF) < 0 ? -1 : 0;
        if (sd_event_source_set_time_relative(https->timer, (uint64_t)timeout_msec * 1000) < 0)
                return -1;
        return sd_event_source_set_enabled(https->timer, SD_EVENT_ONESHOT) < 0 ? -1 : 0;
}

static size_t take_body(char *data, size_t one, size_t size, void *userdata) {
        struct https_exchange *exchange = userdata;

        (void)one;
        if (exchange->reply.size + size > HTTPS_REPLY_MAX) {
                exchange->is_too_long = true;
                return 0;
        }
        buffer_append(&exchange->reply, BYTES(data, size));
        return size;
}

/* The value of one header field where `line` is that field. */
static bool header_value(const char *line, size_t size, const char *name, char *to, size_t to_size) {
        size_t name_size = strlen(name), n;

        if (size <= name_size || strncasecmp(line, name, name_size) != 0 || line[name_size] != ':')
                return false;
        for (line += name_size + 1, size -= name_size + 1; size > 0 && (*line == ' ' || *line == '\t'); line++, size--)
                continue;
        while (size > 0 && (unsigned char)line[size - 1] <= ' ')
                size--;
        n = size < to_size ? size : to_size - 1;
        memcpy(to, line, n);
        to[n] = 0;
        return true;
}

static size_t take_header(char *data, size_t one, size_t size, void *userdata) {
        struct https_exchange *exchange = userdata;
        char date[64];

        (void)one;
        exchange->header_bytes += size;
        if (exchange->header_bytes > HTTPS_REPLY_MAX) {
                exchange->is_too_long = true;
                return 0;
        }
        if (header_value(data, size, "Date", date, sizeof date))
                exchange->date = curl_getdate(date, NULL);
        (void)header_value(data, size, "Retry-After", exchange->retry_after, sizeof exchange->retry_after);
        return size;
}

/* ---- what an exchange gave ---- */

bool https_is_of_type(const char *type, const char *wanted) {
        size_t size = strlen(wanted);

        return type && strncasecmp(type, wanted, size) == 0 &&
               (type[size] == 0 || type[size] == ';' || type[size] == ' ');
}

/* The first line of what an upstream says about a refusal, as far as it is plain text. */
static void quote_reply(const struct https_exchange *exchange, char *to, size_t to_size) {
        size_t size = 0;

        for (; size < exchange->reply.size && size + 1 < to_size; size++) {
                uint8_t c = exchange->reply.data[size];

                if (c < ' ' || c > '~')
                        break;
                to[size] = (char)c;
        }
        to[size] = 0;
}

static void explain_status(const struct https_exchange *exchange, struct https_answer *answer) {
        char quoted[100];

        if (answer->status >= 200 && answer->status < 300)
                return;
        if (answer->status >= 300 && answer->status < 400) {
                snprintf(answer->reason, sizeof answer->reason, "HTTP %u: redirects are not followed", answer->status);
                return;
        }
        quote_reply(exchange, quoted, sizeof quoted);
        if (quoted[0] &&
            (https_is_of_type(answer->type, "text/plain") || https_is_of_type(answer->type, "application/json") ||
             https_is_of_type(answer->type, "application/problem+json")))
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

static enum https_failure failure_of(const struct https_exchange *exchange, CURLcode code) {
        curl_off_t connected_usec = 0;

        switch (code) {
        case CURLE_PEER_FAILED_VERIFICATION:
        case CURLE_SSL_CONNECT_ERROR:
        case CURLE_SSL_CERTPROBLEM:
        case CURLE_SSL_CIPHER:
                return HTTPS_TLS;
        case CURLE_SEND_ERROR:
        case CURLE_RECV_ERROR:
                return strstr(exchange->error, "SSL") ? HTTPS_TLS : HTTPS_NO_WAY;
        case CURLE_OPERATION_TIMEDOUT:
                (void)curl_easy_getinfo(exchange->easy, CURLINFO_APPCONNECT_TIME_T, &connected_usec);
                return connected_usec > 0 ? HTTPS_SILENCE : HTTPS_NO_WAY;
        case CURLE_UNSUPPORTED_PROTOCOL:
        case CURLE_WEIRD_SERVER_REPLY:
                return HTTPS_ODD;
        default:
                return HTTPS_NO_WAY;
        }
}

static void explain_failure(const struct https_exchange *exchange, CURLcode code, struct https_answer *answer) {
        answer->failure = failure_of(exchange, code);
        snprintf(answer->reason, sizeof answer->reason, "%.159s",
                 says_more(code, exchange->error) ? exchange->error : curl_easy_strerror(code));
        for (char *c = answer->reason; *c; c++)
                if (*c < ' ' || *c > '~')
                        *c = ' ';
}

/* Seconds, or a date: that is of the server's clock, and ours may be years off (RFC 9110 §10.2.3). */
static int64_t retry_after(const struct https_exchange *exchange) {
        const char *text = exchange->retry_after;
        time_t until;
        int64_t sec;
        char *end;

        if (text[0] >= '0' && text[0] <= '9') {
                errno = 0;
                sec = strtoll(text, &end, 10);
                return *end == 0 && errno == 0 ? sec : 0;
        }
        until = text[0] ? curl_getdate(text, NULL) : -1;
        if (until == -1)
                return 0;
        sec = (int64_t)until - (int64_t)(exchange->date != -1 ? exchange->date : time(NULL));
        return sec > 0 ? sec : 0;
}

static void read_answer(struct https_exchange *exchange, CURLcode code, struct https_answer *answer) {
        long status = 0;
        char *type = NULL;

        (void)curl_easy_getinfo(exchange->easy, CURLINFO_RESPONSE_CODE, &status);
        (void)curl_easy_getinfo(exchange->easy, CURLINFO_CONTENT_TYPE, &type);
        answer->type = type;
        answer->retry_after_sec = retry_after(exchange);

        /* A refusal is one, however much is said about it; anything else must have come whole. */
        if (code == CURLE_OK || (exchange->is_too_long && status >= 400)) {
                answer->status = status > 0 && status < 1000 ? (uint16_t)status : 0;
                answer->failure = answer->status ? HTTPS_ANSWERED : HTTPS_ODD;
                answer->body = buffer_bytes(&exchange->reply);
                explain_status(exchange, answer);
        } else if (exchange->is_too_long || code == CURLE_FILESIZE_EXCEEDED) {
                answer->failure = HTTPS_ODD;
                snprintf(answer->reason, sizeof answer->reason, "the reply is longer than %u KiB",
                         HTTPS_REPLY_MAX / 1024);
        } else
                explain_failure(exchange, code, answer);
}

struct https_exchange *https_give_up(struct https_exchange *exchange) {
        if (!exchange)
                return NULL;
        if (exchange->is_added)
                (void)curl_multi_remove_handle(exchange->https->multi, exchange->easy);
        curl_easy_cleanup(exchange->easy);
        exchange->credentials = credentials_unref(exchange->credentials);
        curl_slist_free_all(exchange->headers);
        buffer_free(&exchange->body);
        buffer_free(&exchange->reply);
        free(exchange);
        return NULL;
}

/* A handler may begin the next exchange, or give up others: so each is out of libcurl's hands before its
 * handler is called, and libcurl is asked anew after it. */
static void drive(struct https *https, curl_socket_t fd, int events) {
        int running, left;
        CURLMsg *message;

        (void)curl_multi_socket_action(https->multi, fd, events, &running);
        while ((message = curl_multi_info_read(https->multi, &left))) {
                struct https_answer answer = { 0 };
                struct https_exchange *exchange = NULL;
                CURLcode code = message->data.result;

                if (message->msg != CURLMSG_DONE)
                        continue;
                (void)curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &exchange);
                read_answer(exchange, code, &answer);
                (void)curl_multi_remove_handle(https->multi, exchange->easy);
                exchange->is_added = false;
                exchange->handler(exchange->userdata, &answer);
                https_give_up(exchange);
        }
}

/* ---- an exchange ---- */

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

static bool set_http(CURL *easy, long timeout) {
        return curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "https") == CURLE_OK &&
               curl_easy_setopt(easy, CURLOPT_DISALLOW_USERNAME_IN_URL, 1L) == CURLE_OK &&
               curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L) == CURLE_OK &&
               curl_easy_setopt(easy, CURLOPT_PROXY, "") == CURLE_OK &&
               curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1) == CURLE_OK &&
               curl_easy_setopt(easy, CURLOPT_HTTP09_ALLOWED, 0L) == CURLE_OK &&
               curl_easy_setopt(easy, CURLOPT_USERAGENT, "gatewayd/" GATEWAYD_VERSION) == CURLE_OK &&
               curl_easy_setopt(easy, CURLOPT_TIMEOUT, timeout) == CURLE_OK &&
               curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT,
                                timeout < CONNECT_TIMEOUT_SEC ? timeout : CONNECT_TIMEOUT_SEC) == CURLE_OK &&
               curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L) == CURLE_OK &&
               /* A resolver that hangs must not hang the loop with it. */
               curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L) == CURLE_OK &&
               curl_easy_setopt(easy, CURLOPT_MAXFILESIZE_LARGE, (curl_off_t)HTTPS_REPLY_MAX) == CURLE_OK;
}

static bool set_callbacks(struct https_exchange *exchange) {
        CURL *easy = exchange->easy;

        return curl_easy_setopt(easy, CURLOPT_PRIVATE, exchange) == CURLE_OK &&
               curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, take_body) == CURLE_OK &&
               curl_easy_setopt(easy, CURLOPT_WRITEDATA, exchange) == CURLE_OK &&
               curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, take_header) == CURLE_OK &&
               curl_easy_setopt(easy, CURLOPT_HEADERDATA, exchange) == CURLE_OK &&
               curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, exchange->error) == CURLE_OK;
}

static bool set_request(struct https_exchange *exchange, const struct https_request *request) {
        CURL *easy = exchange->easy;

        if (curl_easy_setopt(easy, CURLOPT_URL, request->url) != CURLE_OK ||
            curl_easy_setopt(easy, CURLOPT_HTTPHEADER, exchange->headers) != CURLE_OK ||
            curl_easy_setopt(easy, CURLOPT_FRESH_CONNECT, request->wants_new_connection ? 1L : 0L) != CURLE_OK)
                return false;
        if (!request->is_post)
                return curl_easy_setopt(easy, CURLOPT_HTTPGET, 1L) == CURLE_OK;
        return curl_easy_setopt(easy, CURLOPT_POST, 1L) == CURLE_OK &&
               curl_easy_setopt(easy, CURLOPT_POSTFIELDS, exchange->body.data) == CURLE_OK &&
               curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)exchange->body.size) == CURLE_OK;
}

static void add_header(struct https_exchange *exchange, const char *line) {
        struct curl_slist *headers = curl_slist_append(exchange->headers, line);

        if (!headers)
                oom();
        exchange->headers = headers;
}

int https_begin(struct https *https, const struct https_request *request, https_handler handler, void *userdata,
                struct https_exchange **ret) {
        struct https_exchange *exchange = xcalloc(1, sizeof *exchange);

        exchange->https = https;
        exchange->credentials = credentials_ref(https->credentials);
        exchange->handler = handler;
        exchange->userdata = userdata;
        exchange->date = -1;
        if (request->body) {
                exchange->body = *request->body;
                *request->body = (struct buffer){ 0 };
        }
        add_header(exchange, "Expect:"); /* no round trip before the body */
        for (const char *const *line = request->headers; line && *line; line++)
                add_header(exchange, *line);
        exchange->easy = curl_easy_init();
        if (!exchange->easy || !set_http(exchange->easy, https->timeout_sec) ||
            !set_tls(exchange->easy, &exchange->credentials->files) || !set_callbacks(exchange) ||
            !set_request(exchange, request) || curl_multi_add_handle(https->multi, exchange->easy) != CURLM_OK) {
                https_give_up(exchange);
                return -ENOMEM;
        }
        exchange->is_added = true;
        *ret = exchange;
        return 0;
}

/* ---- set-up ---- */

/* Asked once at the start: a libcurl that cannot do it safely does not do it. */
static int try_options(struct https *https) {
        CURL *easy = curl_easy_init();
        int r = -ENOMEM;

        if (easy)
                r = set_http(easy, https->timeout_sec) && set_tls(easy, &https->credentials->files) ? 0 : -EOPNOTSUPP;
        curl_easy_cleanup(easy);
        return r;
}

static int open_multi(struct https *https) {
        if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
                return -ENOMEM;
        https->multi = curl_multi_init();
        if (!https->multi)
                return -ENOMEM;
        if (curl_multi_setopt(https->multi, CURLMOPT_SOCKETFUNCTION, watch_socket) != CURLM_OK ||
            curl_multi_setopt(https->multi, CURLMOPT_SOCKETDATA, https) != CURLM_OK ||
            curl_multi_setopt(https->multi, CURLMOPT_TIMERFUNCTION, watch_timeout) != CURLM_OK ||
            curl_multi_setopt(https->multi, CURLMOPT_TIMERDATA, https) != CURLM_OK)
                return -EOPNOTSUPP;
        return try_options(https);
}

int https_port(const char *url) {
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

int https_new(sd_event *event, const struct north_config *config, struct https **ret, struct problem *problem) {
        struct https *https = xcalloc(1, sizeof *https);
        struct tls_files files;
        int r;

        https->event = sd_event_ref(event);
        https->timeout_sec = config->timeout_sec > 0 ? (long)config->timeout_sec : 30;
        r = tls_files_read(config, &files, problem);
        if (r >= 0) {
                https->credentials = credentials_new(&files);
                r = sd_event_add_time_relative(event, &https->timer, CLOCK_MONOTONIC, 0, 1, on_timer, https);
                if (r >= 0)
                        r = sd_event_source_set_enabled(https->timer, SD_EVENT_OFF);
                if (r >= 0)
                        r = open_multi(https);
                if (r < 0)
                        problem_set(problem, CODE_INTERNAL, -r, "upstream", "libcurl could not be set up: %s",
                                    strerror(-r));
        }
        if (r < 0) {
                https_free(https);
                return r;
        }
        *ret = https;
        return 0;
}

int https_client_leaf(const struct https *https, struct buffer *ret) {
        unix_sec ignored;

        return tls_files_leaf(&https->credentials->files, ret, &ignored);
}

int https_take_client(struct https *https, struct bytes key, struct bytes chain) {
        _cleanup_(buffer_free) struct buffer mine = { 0 }, theirs = { 0 };
        struct tls_files fresh;
        unix_sec my_end = 0, its_end = 0;
        int r = tls_files_renewed(&https->credentials->files, key, chain, &fresh);

        if (r < 0)
                return r;
        r = tls_files_leaf(&https->credentials->files, &mine, &my_end);
        if (r >= 0)
                r = tls_files_leaf(&fresh, &theirs, &its_end);
        if (r < 0 || its_end <= my_end) {
                tls_files_free(&fresh);
                return r < 0 ? r : 0;
        }
        https->credentials = credentials_unref(https->credentials);
        https->credentials = credentials_new(&fresh);
        return 1;
}

struct https *https_free(struct https *https) {
        if (!https)
                return NULL;
        curl_multi_cleanup(https->multi);
        while (https->watches)
                watch_remove(https, https->watches);
        sd_event_source_disable_unref(https->timer);
        https->credentials = credentials_unref(https->credentials);
        sd_event_unref(https->event);
        free(https);
        return NULL;
}
