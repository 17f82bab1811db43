//! The limit on the runs of a minute.

use super::*;

/// Proves C5.
#[test]
fn no_more_runs_start_within_a_minute_than_the_limit_allows() {
    check_in(
        world_with_limit("2"),
        "e1 unchanged +5000 e2 unchanged +5000 e3 e4 +49999 +1 unchanged e5 +4999 +1",
        "run[e1] finish[e1=done] run[e2] finish[e2=done] run[e3,e4] finish[e3=done,e4=done] run[e5]",
    );
}

#[test]
fn by_default_ten_runs_may_start_within_a_minute() {
    let mut world = world_of(QueueSettings { runs_per_minute: Default::default(), ..settings() });
    for n in 1..=70 {
        world.play(&format!("e{n} unchanged +1000"));
    }
    assert_eq!(world.starts.len(), 20, "ten at once, ten a minute after each of those");
    assert_eq!(world.most_starts_in_a_minute(), 10);
}

#[test]
fn delayed_deliveries_show_until_when_and_the_queue_wakes_then() {
    let mut world = world_with_limit("1");
    world.play("e1 unchanged");
    assert_eq!(world.queue.activity().delayed, None, "nothing waits");
    world.play("+500 e2~ e3");
    let delayed = world.queue.activity().delayed.unwrap();
    assert_eq!(delayed.at, world.now.wall.plus(Duration::from_millis(59_500)));
    assert_eq!(
        delayed.reason,
        "1 run started within a minute (runs_per_minute); the next may start at 12:01:00 UTC"
    );
    assert_eq!(delayed.causes, [samples::event_id(3), samples::event_id(2)]);
    assert_eq!(world.queue.next_wake(), Some(Duration::from_secs(60)));
    // The same words for as long as it is the same delay, whatever the clock does.
    world.play("wall+300 +100");
    assert_eq!(world.queue.activity().delayed.unwrap(), delayed);
    world.play("block");
    assert_eq!(world.queue.activity().delayed, None, "it is held now");
    world.play("unblock +59400");
    assert_eq!(world.seen.last().unwrap(), "run~[e2]");
    assert_eq!(world.queue.activity().delayed, None);
    world.play("unchanged");
    assert_eq!(world.queue.activity().delayed.unwrap().causes, [samples::event_id(3)]);
}

#[test]
fn a_retry_counts_as_a_start_and_waits_for_the_limit_too() {
    let mut world = world_with_limit("2");
    world.play("e1 not_run +10000 not_run");
    let retrying = &world.queue.activity().retrying[0];
    assert_eq!(
        retrying.at,
        world.starts[0].plus(Duration::from_secs(60)),
        "twenty seconds would be too soon"
    );
    world.play("+49999");
    assert_eq!(world.starts.len(), 2);
    world.play("+1");
    assert_eq!(world.starts.len(), 3);
}

#[test]
fn a_restart_makes_no_room_for_more_runs() {
    check_in(
        world_with_limit("2"),
        "e1 unchanged +5000 e2 unchanged +5000 restart e3 +5000 restart +44999 +1",
        "run[e1] finish[e1=done] run[e2] finish[e2=done] run[e3]",
    );
}

#[test]
fn an_adopted_run_counts_from_its_own_start() {
    let mut world = world_with_limit("1");
    world.now.elapsed = Duration::from_secs(1);
    world.adopt(cause("e1"), Timestamp::from_unix_ms(world.now.wall.as_unix_ms() - 50_000));
    world.play("e2 changed +9999");
    assert_eq!(world.seen, ["finish[e1=done]"]);
    world.play("+1");
    assert_eq!(world.seen, ["finish[e1=done]", "run[e2]"]);
}

#[test]
fn an_event_that_expires_while_it_is_delayed_ends_visibly() {
    check_in(
        world_with_limit("1"),
        "e1 unchanged e2 wall+86700001 +60000",
        "run[e1] finish[e1=done] finish[e2=expired]",
    );
}
