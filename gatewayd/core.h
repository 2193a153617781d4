/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The inside of core, shared by core*.c and nobody else: one struct, its turn, and what waits for the
 * barrier. */

#include <limits.h>

#include "gatewayd/core_sessions.h"
#include "gatewayd/evidence/evidence.h"
#include "gatewayd/north/north.h"
#include "gatewayd/operator/control.h"
#include "gatewayd/role.h"
#include "systemd/journal.h"

/* Something a turn decided that leaves once `turn` has passed the barrier. */
#define TURN_OPEN UINT64_MAX
struct output {
        uint64_t turn; /* TURN_OPEN until the turn is committed */
        enum { OUTPUT_FRAME, OUTPUT_EFFECT, OUTPUT_DONE } kind;
        uint8_t frame_type;
        enum link_refusal refusal;
        struct buffer body;                 /* OUTPUT_FRAME, to south's exchange link */
        struct effect effect;               /* OUTPUT_EFFECT */
        void (*done)(void *arg, int error); /* OUTPUT_DONE */
        void *arg;
};

struct output_queue {
        struct output *items; /* a ring */
        size_t first, count, capacity;
};

/* When the schedule is looked at, and how many devices it may call (core_tick.c). */
struct core_pace {
        uint64_t due_usec;     /* when the next tick is set for */
        uint64_t began_usec;   /* when offers were first given, by the monotonic clock ... */
        int64_t began_powered; /* ... and by powered-on seconds */
        double elapsed_sec;    /* since then, when they were last given */
        double offers;         /* at most what one second gives */
        unsigned left;         /* of them in the open turn; turn.offers points here */
        uint64_t shares_usec;  /* when sessions were last looked at */
};

/* A link to another role and its place in the loop; NULL while that role is away. */
struct core_link {
        struct link *link;
        struct link_watch *watch;
};

/* Enrolments at the owner's EST server (core_enrol.c). Whether it is out of reach: turn.is_upstream_away. */
struct core_enrolling {
        uint64_t sent[NORTH_ENROL_WINDOW]; /* numbers this north has not answered; 0: free */
        bool is_due;                       /* there may be something to send */
        int64_t fed_powered;               /* when was last looked, in powered-on seconds */
        bool is_known;                     /* this north has said whether the server can be reached */
        char reason[160];                  /* why it cannot, or what else is wrong with it; empty: nothing */
        uint16_t trouble;                  /* the HTTP status of the latest trouble told of; 0: none */
};

/* The certificate that north shows upstream (core_enrol.c). */
struct core_client {
        struct buffer leaf; /* DER; empty: not known yet */
        unix_sec end;       /* its notAfter; 0: not known */
        unix_sec next;      /* when its renewal is looked at */
};

/* Backups (core_backup.c). */
struct backup_job;
struct core_backup {
        struct backup_job *job;  /* NULL: none is being made */
        struct backup_made made; /* the last one that went into its pipe whole */
        bool is_told;            /* that it is old */
        int64_t looked_powered;  /* when that was looked at */
};

struct core {
        struct role_process process;
        struct config *config;
        struct store *store;
        struct clock clock;
        enum clock_quality quality_told;
        bool is_behind_told;
        struct turn turn;
        bool is_turn_open;
        uint64_t attempt;   /* numbers turns, also those that fail to commit */
        uint64_t last_turn; /* the last one committed that changed something */
        bool is_degraded;   /* the last commit failed for want of space, or of a disk that may be written */
        /* The first commit clears which sessions asked for keys: those of the core before. */
        bool is_forgetting_due;
        struct output_queue outputs;

        struct core_link lookup, exchange;
        struct session_table *sessions;
        struct journal_throttle *throttle;
        uint64_t south_statistics[SOUTH_COUNTERS];

        struct core_link north;
        uint64_t north_sent;   /* the highest sequence sent to this north */
        uint64_t north_open;   /* how many of them are not acknowledged */
        uint64_t north_parked; /* receipts of parked records sent to this north */
        bool is_north_unheard; /* a turn with its acknowledgements was dropped */
        struct message_uplink uplink;
        char uplink_reason[160];
        bool is_uplink_known;
        struct core_enrolling enrolling;
        struct core_client client;
        struct core_backup backup;

        struct custodian custodian;
        struct control *control;
        uint64_t started_usec;
        sd_event_source *tick, *barrier;
        struct core_pace pace;
        unsigned ticks;                           /* shares of the sessions looked at */
        char reschedule_after[DEVICE_ID_MAX + 1]; /* where the pass after a reload stands */
        bool is_rescheduling;
        bool is_sandbox_weak, is_sealing_key_file;
        bool is_recovery_key_brought;  /* by a person, who should take it away again */
        struct due_time own_keys_next; /* when the gateway's own keys are to be looked at */
        int64_t own_keys_retry;        /* not before, in powered seconds: something went wrong */
        int64_t clock_recorded;        /* powered seconds when the clock was last put into the store */
        int64_t housekept;             /* powered seconds of the last clearing of what is too old */
};

/* core.c: turns. A dispatch that may change something begins with core_begin(), ends with core_end();
 * what it wants to say goes through core_output_*(). */
struct turn *core_begin(struct core *core, const char *actor);
/* Commits; what waits for no barrier leaves at once. Returns 0 or the error the turn was dropped for. */
int core_end(struct core *core);
/* Drops the open turn with all it wanted to say. */
void core_drop(struct core *core);
/* Sends what the barrier allows. */
void core_flush(struct core *core);
/* An event that claims no state of the store: leaves at once. `noisy` ones are counted, not repeated. */
void core_event(struct core *core, const struct event *event);
uint64_t core_monotonic_usec(void);
/* The end of core: nothing may leave any more. */
_Noreturn void core_fatal(struct core *core, enum event_kind kind, const char *reason);

/* core_tick.c */
/* Starts ticking. */
int core_tick_start(struct core *core);
void core_tick_stop(struct core *core);
/* Gives the turn that begins what may be called in it. */
void core_tick_offer(struct core *core);
/* The turn is over: what was called in it counts. */
void core_tick_taken(struct core *core);
/* A turn has changed something: what it made due is not to wait for an idle tick. */
void core_tick_soon(struct core *core);
/* Every device's due time is worked out anew, a portion a tick. */
void core_tick_all(struct core *core);

/* core_degraded.c: while nothing can be stored. */
/* The open turn could not be committed because of `error`: drops it. What it wanted to answer becomes 5.03. */
void core_degrade(struct core *core, int error);
/* While degraded: takes back what has been changed in this turn, and what it wrote down since `mark`. Returns
 * whether there was anything; not degraded: false. */
bool core_take_back(struct core *core, size_t mark);
/* The session's handshake was taken back, or its turn dropped: it may read, or is evicted. */
void core_session_unwritten(struct core *core, struct session *session);
/* In the tick: whether turns can be written again. true: a turn is open. */
bool core_try_again(struct core *core);
void core_recover(struct core *core);

/* core_output.c */
struct output *output_push(struct output_queue *queue);
void output_pop(struct output_queue *queue);
struct output *output_at(struct output_queue *queue, size_t index);
/* Drops what the open turn has pushed; done callbacks are told `error`. */
void output_drop_open(struct output_queue *queue, int error);
void output_frame(struct core *core, uint8_t type, enum link_refusal refusal, struct buffer *body);
/* Carries out one effect whose turn has passed. */
void core_effect(struct core *core, const struct effect *effect);

/* core_south.c */
int core_south_attach(struct core *core, int lookup, int exchange);
void core_south_detach(struct core *core);
void core_evict(struct core *core, struct session *session);
/* Fills the session's identity from the store; 0, or evicts it and returns a negative errno. */
int core_refresh(struct core *core, struct session *session, struct identity *ret);
void core_notify(struct core *core, const char *device, unsigned observes);
void core_sessions_check_share(struct core *core, unsigned share);

/* core_north.c */
int core_north_attach(struct core *core, int link);
void core_north_detach(struct core *core);
/* Sends waiting records as far as the window allows; only what has passed the barrier. */
void core_north_feed(struct core *core);
/* What north said in a turn that was dropped it must be asked again, now that the store takes it. */
void core_north_again(struct core *core);

/* core_enrol.c */
/* Sends enrolments that wait for the upstream CA, as far as the window allows; once they have passed the barrier. */
void core_enrol_feed(struct core *core);
/* A frame of north that is about enrolment. 0 or -EBADMSG. */
int core_enrol_frame(struct core *core, struct frame *frame);
/* A renewed client certificate goes to north, also to each new one. */
void core_client_send(struct core *core);
/* Each tick: asks for its renewal where that is due. */
void core_client_tick(struct core *core);
void core_enrol_detach(struct core *core);

/* core_authority.c */
/* Opens the CA's keys, in the first turn. A negative errno only where the store cannot be read. */
int core_authority_open(struct core *core);
void core_authority_close(struct core *core);
/* Makes the folder for the CRLs, before the wall goes up, and says where it is. */
int core_authority_folder(const struct core *core, char to[PATH_MAX], struct problem *problem);
/* What is due of the CA, in the tick's turn. */
void core_authority_tick(struct core *core);
/* Before each commit: CRLs that the turn made stale. */
int core_authority_before_commit(struct core *core);
/* Writes the CRLs beside the control socket, for other services on the gateway: RUNTIME/crl/N.crl. */
void core_authority_publish(struct core *core);

/* core_south.c: what south shows devices. */
void core_south_credentials(struct core *core);

/* core_backup.c */
/* In the first turn: removes what a backup left that was cut off; a store that was restored is told of. */
int core_backup_open(struct core *core);
/* After that turn's barrier: the store is under its own sealing key, and a key that restore or recover brought goes. */
int core_backup_settled(struct core *core);
/* In the tick's turn: tells once that the last backup is too old. */
void core_backup_tick(struct core *core);
/* As control_backend's backup and backup_kept. */
int core_backup_start(struct core *core, int fd, const char *recipient, backup_done done, void *arg,
                      struct problem *problem);
int core_backup_kept(struct core *core, unix_sec made, struct problem *problem);
/* Ends one that is being made; it is not answered. Before control_free(). */
void core_backup_close(struct core *core);

/* core_control.c */
int core_control_attach(struct core *core, struct problem *problem);
