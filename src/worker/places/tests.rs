//! What becomes of places, and of what waits for one.

use super::*;
use crate::worker::prefetch::Prefetch;

impl Weigh for u32 {
    /// Numbers from a million on weigh as many bytes.
    fn weight(&self) -> usize {
        if *self < 1_000_000 { 1 } else { *self as usize }
    }
}

fn places(all: usize, prefetch: Prefetch) -> Places<u32> {
    Places::new(all, Pace::new(prefetch, Duration::from_secs(30)))
}

fn now() -> Stopwatch {
    Stopwatch::start()
}

#[test]
fn a_place_is_free_kept_or_taken_and_none_is_kept_once_closed() {
    let places = places(3, Prefetch::AtMost(0));
    assert_eq!(places.keep(2), 2);
    let asked = places.ask(1, 5, false, false);
    assert_eq!((asked.all(), places.are_kept()), (1, true));
    assert_eq!((places.keep(1), places.ask(1, 1, true, false).all()), (0, 0), "all are gone");
    assert_eq!(places.filled(2, vec![1], now()).tasks, 1);
    assert_eq!(places.answered(asked, vec![], now()).tasks, 0);
    assert_eq!(places.keep(5), 2);
    assert_eq!(places.filled(2, vec![], now()).tasks, 0);
    assert_eq!(places.close(), [1], "its task has not begun it");
    assert_eq!(places.keep(1), 0);
    assert!(!places.are_all_free());
    assert_eq!(places.next(false).map(|(item, _)| item), None, "what waited is not begun");
    assert!(places.are_all_free());
}

#[test]
fn half_of_what_is_free_is_left_to_who_publishes() {
    let places = places(3, Prefetch::AtMost(0));
    places.share();
    assert_eq!(places.ask(1, 5, false, false).all(), 2, "one is left");
    assert_eq!((places.ask(1, 5, false, false).all(), places.ask(1, 5, true, false).all()), (1, 0));
}

#[test]
fn what_waits_takes_no_place_that_is_kept() {
    let places = places(2, Prefetch::AtMost(4));
    assert_eq!(places.keep(1), 1);
    let asked = places.ask(1, 100, false, false);
    assert_eq!(asked, Asked { own: 1, more: 4 });
    assert_eq!(places.answered(asked, (0..5).collect(), now()).tasks, 1);
    let first = || places.next(false).map(|(item, _)| item);
    assert_eq!(first(), Some(0));
    // What the place was kept for has it.
    assert_eq!(places.filled(1, vec![9], now()).tasks, 1);
    assert_eq!((first(), places.waiting()), (Some(9), 4));
    // And where nothing comes, what waits.
    assert_eq!(places.next(true).map(|(item, _)| item), Some(1));
    let places = self::places(2, Prefetch::AtMost(4));
    assert_eq!(places.keep(1), 1);
    let asked = places.ask(1, 100, false, false);
    assert_eq!(places.answered(asked, (0..5).collect(), now()).tasks, 1);
    assert_eq!(places.filled(1, vec![], now()).tasks, 1);
}

#[test]
fn what_is_beyond_the_places_waits_and_is_asked_for_again_at_half() {
    let places = places(2, Prefetch::AtMost(4));
    let asked = places.ask(1, 100, false, false);
    assert_eq!(asked, Asked { own: 2, more: 4 });
    assert_eq!(places.ask(1, 100, true, false).all(), 0, "that much is under way");
    assert_eq!(places.answered(asked, (0..6).collect(), now()).tasks, 2);
    let first = || places.next(false).map(|(item, _)| item);
    let next = || places.next(true).map(|(item, _)| item);
    assert_eq!((first(), first(), places.waiting()), (Some(0), Some(1), 4), "in their order");
    assert_eq!(next(), Some(2));
    assert_eq!(places.ask(1, 100, false, false).all(), 0, "more than half of them wait");
    let eager = places.ask(1, 100, true, false);
    assert_eq!(eager, Asked { own: 0, more: 1 });
    assert_eq!(places.answered(eager, vec![], now()).tasks, 0);
    assert_eq!((next(), places.waiting()), (Some(3), 2));
    assert_eq!(places.ask(3, 100, false, false).all(), 0, "not worth it");
    assert_eq!(places.ask(1, 100, false, false), Asked { own: 0, more: 2 });
    assert_eq!(places.keep(1), 0, "nothing that is published is to wait here");
}

#[test]
fn of_what_is_heavy_little_waits() {
    let places = places(1, Prefetch::AtMost(100));
    let heavy = u32::try_from(WEIGHT_MAX / 8).expect("it fits");
    let asked = places.ask(1, 3, false, false);
    assert_eq!(asked, Asked { own: 1, more: 2 }, "nothing is known yet");
    assert_eq!(places.answered(asked, vec![heavy; 3], now()).tasks, 1);
    // Five more, but for those that are on their way.
    let asked = places.ask(1, 2, true, false);
    assert_eq!(asked, Asked { own: 0, more: 2 });
    let further = places.ask(1, 100, true, false);
    assert_eq!(further, Asked { own: 0, more: 3 });
    assert_eq!(places.answered(asked, vec![2 * heavy; 2], now()).tasks, 0);
    assert_eq!(places.ask(1, 100, true, false).all(), 0, "they were heavier than that");
    assert_eq!(places.answered(further, vec![], now()).tasks, 0);
    assert_eq!(places.next(false).map(|(item, _)| item), Some(heavy));
    while places.next(true).is_some() {}
    // Once those are gone, and of light ones, there is room again.
    let asked = places.ask(1, 2, true, false);
    assert_eq!(asked, Asked { own: 1, more: 1 });
    assert_eq!(places.answered(asked, vec![1, 2], now()).tasks, 1);
    assert_eq!(places.ask(1, 200, true, false), Asked { own: 0, more: 98 });
}

#[test]
fn what_comes_when_nothing_is_begun_any_more_is_left() {
    let places = places(1, Prefetch::AtMost(9));
    let asked = places.ask(1, 4, false, false);
    assert_eq!(places.answered(asked, vec![1, 2, 3], now()).tasks, 1);
    assert_eq!(places.next(false).map(|(item, _)| item), Some(1));
    let asked = places.ask(1, 2, true, false);
    assert_eq!(places.close(), [2, 3]);
    let put = places.answered(asked, vec![4, 5], now());
    assert_eq!((put.tasks, put.left), (0, vec![4, 5]));
    assert!(!places.are_all_free(), "one is being handled");
    assert!(places.next(true).is_none());
    assert!(places.are_all_free());
}

#[test]
fn what_has_waited_for_long_is_given_back_where_the_pace_decides() {
    let lease = Duration::from_millis(10);
    for (prefetch, wanted) in [(Prefetch::Auto, vec![2, 3]), (Prefetch::AtMost(9), vec![])] {
        let places: Places<u32> = Places::new(1, Pace::new(prefetch, lease));
        let came = now();
        assert_eq!(places.filled(0, vec![1, 2, 3], came).tasks, 1);
        assert_eq!(places.next(false).map(|(item, _)| item), Some(1));
        while came.elapsed() < lease {
            std::thread::yield_now();
        }
        assert_eq!(places.overdue(), (wanted, None));
    }
}
