//! What a store of artifacts promises, whatever keeps the bytes: the same list of tests over a folder, and over a bucket
//! of an S3 server that nobody here wrote and that verifies every signature.

mod attempts;
mod bucket;
mod promises;
mod setting;

pub(crate) use setting::Setting;

/// Runs every test of the list over every backend. One that is written and not listed is dead code, which the lints
/// refuse.
macro_rules! promises {
    ($($name:ident),* $(,)?) => {
        promises!(@over over_a_folder, super::Setting::folder, $($name)*);
        promises!(@over over_a_bucket, super::Setting::bucket, $($name)*);
    };
    (@over $over:ident, $make:expr, $($name:ident)*) => {
        mod $over {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    super::promises::$name($make().await).await;
                }
            )*
        }
    };
}

promises! {
    what_is_put_is_given_back_with_its_type,
    the_same_bytes_are_kept_once_and_count_once,
    a_tenant_has_its_own_and_none_but_a_name_is_one,
    a_part_is_given_alone,
    a_large_artifact_comes_in_pieces,
    a_list_goes_on_where_it_ended,
    an_artifact_and_a_tenant_have_their_limits,
    what_is_not_what_it_is_called_is_refused_coming_and_going,
    what_is_deleted_is_gone,
    many_may_put_at_once,
    the_old_goes_and_what_was_put_again_stays,
}
