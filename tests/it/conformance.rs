//! What a bus promises, whichever way it is reached: the same list of tests over SQL, over HTTPS with all rights,
//! and over HTTPS with a token of one tenant and worker.

mod artifacts;
mod claims;
mod env;
mod failing;
mod https;
mod log;
mod proxy;
mod sends;
mod setting;
mod workers;

/// Runs every test of the list over every way. One that is written and not listed is dead code, which the lints
/// refuse.
macro_rules! conformance {
    ($($module:ident: { $($name:ident),* $(,)? })*) => {
        conformance!(@way over_postgres, crate::conformance::setting::Way::Postgres, $($module $($name)*;)*);
        conformance!(@way over_https, crate::conformance::setting::Way::Service, $($module $($name)*;)*);
        conformance!(@way over_https_with_a_token, crate::conformance::setting::Way::Token, $($module $($name)*;)*);
    };
    (@way $way:ident, $which:expr, $($module:ident $($name:ident)*;)*) => {
        mod $way {
            $($(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    super::$module::$name(super::setting::Setting::new($which).await).await;
                }
            )*)*
        }
    };
}

conformance! {
    sends: {
        a_message_is_there_as_it_was_sent,
        the_same_idempotency_key_gives_the_same_message,
        a_batch_is_answered_in_its_order,
        a_batch_of_which_one_is_refused_writes_nothing,
        concurrent_publishes_are_each_answered_and_a_bad_one_fails_alone,
        a_publish_whose_answer_was_lost_is_there_once_and_no_duplicate,
        a_queue_that_is_full_says_when_to_try_again,
        megabytes_go_through_alone_and_many_at_once,
        a_payload_over_the_limit_fails_alone,
        what_is_cancelled_is_not_claimed,
    }
    claims: {
        a_claim_is_one_workers_alone,
        a_lease_that_ran_out_is_claimed_by_another_and_the_first_settle_is_stale,
        a_settle_that_is_sent_again_is_told_as_repeated,
        a_settle_whose_answer_was_lost_is_done_once,
        a_claim_whose_answer_was_lost_is_not_made_again_by_itself,
        a_lease_that_is_extended_holds_and_a_stale_one_is_told,
        a_failure_with_a_delay_comes_back_when_it_is_due,
        a_delayed_message_waits_until_it_is_due,
        messages_of_an_ordering_key_go_one_after_the_other,
        what_is_parked_for_a_breaker_goes_on_when_it_closes,
        a_payload_that_cannot_be_read_is_a_dead_letter_and_holds_nobody_up,
        many_large_results_are_settled_with_one_call,
        a_claim_with_bad_arguments_names_the_argument,
    }
    env: {
        a_value_is_followed_as_it_is_set_changed_and_unset,
        names_and_values_are_read_alike_and_a_tokens_are_its_tenants,
        what_is_wrong_with_an_entry_is_named_and_nothing_is_set,
    }
    failing: {
        a_failure_that_says_nothing_of_a_result_makes_no_dead_letter_of_it,
        what_the_database_refuses_of_a_result_is_a_dead_letter_that_says_so,
        a_result_that_the_database_fails_at_for_ever_holds_up_no_other,
        a_right_that_is_missing_is_told_with_what_gives_it,
    }
    log: {
        what_happened_is_read_alike,
        the_log_is_read_on_from_a_cursor_without_a_gap,
        a_filter_that_is_none_is_refused_by_name,
        progress_is_appended_and_a_transition_is_not,
        whoever_waits_for_a_message_is_told,
        breakers_are_opened_probed_and_read_alike,
        the_schema_has_a_version_and_what_waits_is_counted_alike,
    }
    workers: {
        a_worker_is_seen_and_goes,
        a_runner_does_what_is_published_and_stops,
        a_worker_that_finds_nothing_is_woken_long_before_it_polls,
        a_worker_shows_what_it_holds_and_offers,
        what_is_offered_is_defined_read_and_approved_alike,
        a_cancel_reaches_the_handler_long_before_its_lease_is_looked_after,
        every_report_reaches_whoever_watches_before_the_end,
        only_a_database_has_a_dead_letter_queue,
    }
}
