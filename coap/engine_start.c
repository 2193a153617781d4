/* SPDX-License-Identifier: Apache-2.0 */

/* Making the engines, and finding out whether this libcoap works as one before any device relies on
 * it. */

#include "coap/engine_parts.h"

#include <errno.h>
#include <stdlib.h>

#include "coap/engine_io.h"

static const coap_request_t methods[] = {
        COAP_REQUEST_GET,   COAP_REQUEST_POST,  COAP_REQUEST_PUT,    COAP_REQUEST_DELETE,
        COAP_REQUEST_FETCH, COAP_REQUEST_PATCH, COAP_REQUEST_IPATCH,
};

/* Whatever the path, core decides: one resource takes what has no other, and one more takes the path
 * that libcoap would answer by itself. */
static bool resources_make(coap_context_t *context) {
        coap_resource_t *unknown = coap_resource_unknown_init(engine_handle_request);
        coap_resource_t *core = coap_resource_init(coap_make_str_const(".well-known/core"), 0);

        if (!unknown || !core)
                return false;
        for (size_t i = 0; i < ELEMENTS(methods); i++) {
                coap_register_request_handler(unknown, methods[i], engine_handle_request);
                coap_register_request_handler(core, methods[i], engine_handle_request);
        }
        coap_add_resource(context, unknown);
        coap_add_resource(context, core);
        return true;
}

static int engine_make(struct engine *engine, sd_event *event) {
        static const struct engine_io_hooks hooks = { engine_receive, engine_send_out };
        coap_endpoint_t *endpoint;
        coap_address_t address;
        int r;

        TAILQ_INIT(&engine->inbox);
        TAILQ_INIT(&engine->done);
        engine->context = coap_new_context(NULL);
        if (!engine->context || !resources_make(engine->context))
                return -ENOMEM;
        coap_set_app_data(engine->context, engine->engines);
        coap_register_event_handler(engine->context, engine_peer_event);
        coap_register_nack_handler(engine->context, engine_not_delivered);

        coap_address_init(&address);
        address.addr.sin.sin_family = AF_INET; /* IPv6 may be off here */
        address.size = sizeof address.addr.sin;
        engine_io_attach_begin(engine, &hooks);
        endpoint = coap_new_endpoint(engine->context, &address, COAP_PROTO_UDP);
        engine->fd = engine_io_attach_end();
        if (!endpoint)
                return -EIO;
        if (engine->fd < 0)
                return engine->fd;
        /* As much as its read buffer takes; what we send is bounded by dtls_room(). */
        coap_endpoint_set_default_mtu(endpoint, COAP_RXBUFFER_SIZE + HEADER_BYTES);
        r = sd_event_add_io(event, &engine->source, coap_context_get_coap_fd(engine->context), EPOLLIN, engine_on_timer,
                            engine);
        return r;
}

/* One request and one answer through each engine, twice: the second finds that the first virtual peer
 * has really gone. */
static bool self_test(struct engine *engine) {
        static const uint8_t request[] = { 0x40, CODE_GET, 0x12, 0x34, 0xb4, 't', 'e', 's', 't' };
        struct engines *engines = engine->engines;

        for (unsigned round = 1; round <= 2; round++) {
                struct inbox_entry *entry = TAILQ_FIRST(&engines->spare);
                uint64_t clock_reads = engine_io_clock_reads();

                engines->self_tests = 0;
                engines->self_test_peer = NULL;
                TAILQ_REMOVE(&engines->spare, entry, entries);
                entry->number = SELF_TEST_NUMBER;
                entry->size = sizeof request;
                memcpy(entry->data, request, sizeof request);
                TAILQ_INSERT_TAIL(&engine->inbox, entry, entries);
                engine->waiting = 1;
                engine_run(engine, 1);
                if (!TAILQ_EMPTY(&engine->done)) {
                        TAILQ_REMOVE(&engine->done, entry, entries);
                        TAILQ_INSERT_TAIL(&engines->spare, entry, entries);
                }
                if (engines->self_tests != 1 || !engines->self_test_peer || engine_io_clock_reads() == clock_reads)
                        return false;
                engine_io_enter();
                engine_peer_free(engines, engines->self_test_peer);
                engine_io_leave();
        }
        return true;
}

static void quiet(coap_log_t level, const char *message) {
        (void)level;
        (void)message;
}

static void libcoap_start(void) {
        engine_io_enter(); /* its ticks count from the clock that it sees now */
        coap_startup();
        engine_io_leave();
        coap_set_log_handler(quiet);
        coap_set_log_level(LOG_EMERG);
}

int engines_new(sd_event *event, unsigned count, struct sessions *sessions, const struct engine_handlers *handlers,
                struct engines **ret, struct problem *problem) {
        struct engines *engines = xcalloc(1, sizeof *engines);
        int r = 0;

        libcoap_start();
        engines->each = xcalloc(count, sizeof *engines->each);
        engines->count = count;
        engines->sessions = sessions;
        engines->handlers = *handlers;
        engines->muted = -1;
        TAILQ_INIT(&engines->busy);
        TAILQ_INIT(&engines->spare);
        for (size_t i = 0; i < INBOX_MAX; i++)
                TAILQ_INSERT_TAIL(&engines->spare, &engines->pool[i], entries);
        for (unsigned i = 0; i < count && r >= 0; i++) {
                engines->each[i].engines = engines;
                r = engine_make(&engines->each[i], event);
        }
        if (r < 0)
                r = problem_set(problem, CODE_INTERNAL, -r, "libcoap", "engine without a socket: %s", strerror(-r));
        for (unsigned i = 0; i < count && r >= 0; i++)
                if (!self_test(&engines->each[i]))
                        r = problem_set(problem, CODE_INTERNAL, ENOTSUP, "libcoap",
                                        "%s does not work as an engine without sockets", coap_package_name());
        if (r < 0) {
                engines_free(engines);
                return r;
        }
        *ret = engines;
        return 0;
}

struct engines *engines_free(struct engines *engines) {
        if (!engines)
                return NULL;
        for (unsigned i = 0; i < engines->count; i++) {
                sd_event_source_disable_unref(engines->each[i].source);
                if (!engines->each[i].context)
                        continue;
                engine_io_enter();
                coap_free_context(engines->each[i].context);
                engine_io_leave();
        }
        buffer_free(&engines->scratch.path);
        buffer_free(&engines->scratch.query);
        buffer_free(&engines->loose);
        free(engines->each);
        free(engines);
        return NULL;
}
