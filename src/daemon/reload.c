/* SPDX-License-Identifier: ISC */
#include <config.h>

#include "daemon/reload.h"

#include <stdio.h>
#include <string.h>

#include "base/notify.h"
#include "daemon/retire.h"
#include "models/model.h"

void reload_failed(struct supervisor *supervisor, const char *why)
{
	log_event(LOG_ERR, EVENT_RELOAD_FAILED, "Reload failed, keeping the running configuration: %s", why);
	supervisor_report(supervisor, REPORT_READY);
}

static void log_errors(const struct diagnostics *errors, enum event event)
{
	for (size_t i = 0; i < errors->count; i++)
		log_event(LOG_ERR, event, "%s", errors->items[i].text);
}

static void log_not_applied(const struct conf *old, const struct conf *new)
{
	for (enum conf_key key = 0; key < CONF_KEYS; key++)
		if (conf_needs_restart(old, new, key))
			log_event(LOG_WARNING, EVENT_CONFIG_WRONG,
			          "%s: %s is not applied by a reload; restart to apply it", new->path,
			          conf_key_name(key));
}

static void reload_rejected(struct supervisor *supervisor, struct conf *conf, struct diagnostics *errors)
{
	char why[512];

	log_errors(errors, EVENT_CONFIG_WRONG);
	snprintf(why, sizeof why, "%s%s", errors->count > 0 ? errors->items[0].text : "out of memory",
	         errors->count > 1 ? " (and more)" : "");
	reload_failed(supervisor, why);
	diag_clear(errors);
	conf_free(conf);
}

void reload_begin(struct supervisor *supervisor)
{
	struct diagnostics errors = { 0 };
	struct conf *conf = NULL;
	int r;

	notify_reloading();
	report_clear_last_error(&supervisor->report);
	supervisor->reload_again = false;
	/* removed listeners, whose addresses the new configuration may name again */
	if (supervisor->retired.count > 0)
		retire_maintain(supervisor, INT64_MAX);
	r = conf_read(&conf, supervisor->options->path, &supervisor->options->overrides, model_names,
	              model_check, &errors);
	if (r == 0 && !supervisor->activated)
		r = sockets_open(&supervisor->next_sockets, conf, &supervisor->sockets,
		                 &supervisor->privileges, &errors);
	if (r < 0) {
		reload_rejected(supervisor, conf, &errors);
		return;
	}
	log_not_applied(supervisor->current->conf, conf);
	supervisor_check_log_target(conf, supervisor->options->foreground);
	r = crew_start(&supervisor->next, conf,
	               supervisor->activated ? &supervisor->sockets : &supervisor->next_sockets,
	               &supervisor->context, &supervisor->crews);
	if (r < 0) {
		supervisor->next = NULL;
		sockets_abandon(&supervisor->next_sockets);
		reload_failed(supervisor, strerror(-r));
		return;
	}
	supervisor_add_next(supervisor);
}

void reload_done(struct supervisor *supervisor)
{
	struct crew *old = supervisor->current;

	supervisor->current = supervisor->next;
	supervisor->next = NULL;
	if (!supervisor->activated) {
		supervisor_count_dropped(supervisor);
		retire_unnamed(supervisor, &supervisor->sockets, supervisor->current->conf);
		supervisor->sockets = supervisor->next_sockets;
		supervisor->next_sockets = (struct sockets) { 0 };
	} else {
		supervisor_compare_sockets(supervisor, supervisor->current->conf);
	}
	sockets_set_files(&supervisor->sockets, supervisor->current->conf);
	sockets_set_keepalive(&supervisor->sockets, supervisor->current->conf->tcp_keepalive);
	sockets_set_buffers(&supervisor->sockets, supervisor->current->conf->socket_buffer,
	                    old->conf->socket_buffer);
	supervisor_open_log(supervisor->current->conf, supervisor->options->foreground);
	supervisor_stop_crew(supervisor, old, STOP_HAND_OVER, HAND_OVER_WAIT);
	supervisor_log_serving(supervisor, EVENT_RELOADED, "Reloaded");
	supervisor_store_sockets(supervisor);
	supervisor_report(supervisor, REPORT_READY);
	supervisor_set_stats_timer(supervisor);
}
