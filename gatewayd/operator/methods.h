/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The methods of org.gatewayd.Manager1, apart from how they are carried (control.c). */

#include "gatewayd/operator/answer.h"
#include "gatewayd/operator/control.h"
#include "gatewayd/operator/monitor.h"

struct call; /* control.c */

struct method_call {
        const struct control_backend *backend;
        const struct monitor *monitor;
        struct turn *turn;
        sd_bus_message *request;
        struct answer answer;
        struct problem *problem;
        struct buffer *complaint; /* instead of the problem's detail, where that is too short */
        struct call *later;       /* for method_answer_later() */
        bool is_later;            /* set by a method that has changed nothing and answers later */
};

/* The reply of a call that is answered later, to be filled; and sending it. `error` < 0: `text` says why. */
sd_bus_message *method_later_reply(struct call *later);
void method_answer_later(struct call *later, int error, const char *text);

/* Reads its arguments, does its work in the turn, and writes its answer. A negative errno drops the
 * turn; the caller gets the problem's detail, or the complaint. */
struct method {
        const char *name;
        int (*run)(struct method_call *call);
};

/* interface.c. NULL: there is no such method. */
const struct method *method_find(const char *name);
extern const sd_bus_vtable control_vtable[];
/* control.c: what the vtable calls for each of them; `userdata` is the connection. */
int control_on_method(sd_bus_message *request, void *userdata, sd_bus_error *error);

int method_import_devices(struct method_call *call);
int method_add_device(struct method_call *call);
int method_remove_device(struct method_call *call);
int method_revoke_device(struct method_call *call);
int method_reset_device(struct method_call *call);
int method_rotate_device(struct method_call *call);
int method_release_device(struct method_call *call);
int method_rotate(struct method_call *call);
int method_pause_rotation(struct method_call *call);
int method_resume_rotation(struct method_call *call);

int method_list_devices(struct method_call *call);
int method_show_device(struct method_call *call);
int method_status(struct method_call *call);
int method_audit(struct method_call *call);
int method_verify_audit(struct method_call *call);
int method_relay_now(struct method_call *call);
int method_make_recovery_key(struct method_call *call);
int method_now(struct method_call *call);
int method_sealing_place(struct method_call *call);
int method_prepare_sealing_key(struct method_call *call);
int method_finish_sealing_key(struct method_call *call);

int method_list_keys(struct method_call *call);
int method_count_device_keys(struct method_call *call);
int method_list_device_keys(struct method_call *call);

int method_ca_init(struct method_call *call);
int method_ca_csr(struct method_call *call);
int method_ca_import(struct method_call *call);
int method_ca_roll(struct method_call *call);
int method_ca_show(struct method_call *call);
int method_ca_crl(struct method_call *call);
int method_ca_anchors(struct method_call *call);

int method_backup(struct method_call *call);
int method_backup_kept(struct method_call *call);
int method_list_missing(struct method_call *call);

/* The section of Status that is about the CA (methods_ca.c). */
int show_ca(struct method_call *call);
/* The section of Status that is about backups (methods_backup.c). */
int show_backup(struct method_call *call, const struct store_meta *meta);
/* The section of Status that is about the gateway's own keys, and pauses (methods_keys.c). */
int show_keys(struct method_call *call);
