use super::*;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

struct Site {
    dir: tempfile::TempDir,
    look: DisableWatcher,
}

impl Site {
    /// Creates a directory whose agent acts for lb01, in which nothing is known of Puppet.
    fn new(program: &str, source: CertnameSource) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let program = if program.starts_with('.') {
            dir.path().join(program).display().to_string()
        } else {
            program.to_owned()
        };
        let command = RunCommand::from_words(vec![program, "agent".to_owned()]).unwrap();
        let puppet = Puppet {
            command,
            environment: BTreeMap::new(),
            state_dir: dir.path().to_owned(),
            certname: "lb01".parse().unwrap(),
            source,
        };
        let site = Self { dir, look: DisableWatcher::new(puppet) };
        fs::write(site.path("puppet.conf"), "").unwrap();
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn disable(&self, lock: &str, why: &str) {
        fs::write(self.path(lock), format!(r#"{{"disabled_message":"{why}"}}"#)).unwrap();
    }

    fn settings(&self, lock: &str, certname: &str) -> PuppetSettings {
        let mut settings = PuppetSettings {
            certname: certname.to_owned(),
            last_run_report: self.path("report"),
            own_report: self.path("report"),
            disabled_lock: self.path(lock),
            run_lock: self.path("run"),
            config: self.path("puppet.conf"),
            config_changed_at: None,
            logdest: None,
            limits: Default::default(),
            tls: None,
        };
        settings.config_changed_at = settings.config_time();
        settings
    }

    fn answers(&self, lock: &str, certname: &str, is_fresh: bool) {
        let puppet = Answer::Settings(Arc::new(self.settings(lock, certname)));
        self.look.known.send_replace(Known { puppet, is_fresh, failure: None });
    }

    fn blocker(&mut self) -> Option<PuppetBlocker> {
        self.look.latest = None;
        self.look.reason(true)
    }

    fn reason(&mut self, about_to_start: bool) -> String {
        self.look.reason(about_to_start).map(|blocker| blocker.reason().to_owned()).unwrap_or_default()
    }

    async fn is_asked(&self) -> bool {
        tokio::time::timeout(Duration::from_millis(1), self.look.ask.notified()).await.is_ok()
    }
}

fn configured() -> CertnameSource {
    CertnameSource::Configured("lb01".parse().unwrap())
}

/// Creates a directory in which the path of Puppet's lock is known.
fn site() -> Site {
    let site = Site::new("puppet", configured());
    site.answers("lock", "lb01", true);
    site
}

async fn a_second() {
    tokio::time::sleep(LOOK_LIFETIME).await;
}

#[tokio::test(start_paused = true)]
async fn a_look_holds_for_a_second_unless_a_run_is_about_to_start() {
    let mut site = site();
    assert_eq!(site.reason(true), "");
    site.disable("lock", "disks");
    assert_eq!(site.reason(false), "", "a thousand arrivals are one look");
    assert_eq!(site.reason(true), "Puppet is disabled on this node: disks");
    fs::remove_file(site.path("lock")).unwrap();
    assert!(site.reason(true).contains("disks"), "nor are they more while they all wait");
    a_second().await;
    assert_eq!(site.reason(false), "");
}

#[tokio::test(start_paused = true)]
async fn puppet_is_asked_again_when_its_configuration_has_changed() {
    let mut site = site();
    site.disable("moved", "disks");
    assert_eq!(site.reason(true), "");
    assert!(!site.is_asked().await);
    fs::remove_file(site.path("puppet.conf")).unwrap();
    assert!(site.reason(true).contains("has changed: Puppet is being asked"));
    assert!(site.is_asked().await);
    a_second().await;
    assert!(site.reason(true).contains("has changed"));
    assert!(!site.is_asked().await, "once for each change");
    site.answers("moved", "lb01", true);
    site.look.has_moved().await;
    assert!(site.reason(false).contains("disks"));
}

#[tokio::test(start_paused = true)]
async fn puppet_is_asked_now_and_then_while_it_is_disabled() {
    let mut site = site();
    site.disable("lock", "disks");
    let mut asked = 0;
    for _ in 0..601 {
        assert!(site.reason(false).contains("disks"));
        asked += usize::from(site.is_asked().await);
        a_second().await;
    }
    assert_eq!(asked, 3, "at once, and every five minutes");
}

#[test]
fn what_is_not_known_is_no_permission() {
    let is_unknown = |site: &mut Site, words: &str| match site.blocker() {
        Some(PuppetBlocker::Unknown(reason)) => assert!(reason.contains(words), "{reason}"),
        other => panic!("{other:?}"),
    };
    let is_broken = |site: &mut Site, words: &str| match site.blocker() {
        Some(PuppetBlocker::Broken(reason)) => assert!(reason.contains(words), "{reason}"),
        other => panic!("{other:?}"),
    };
    let mut site = Site::new("puppet", configured());
    is_unknown(&mut site, "not known yet whether Puppet may run here: Puppet is being asked");
    let fails = |site: &Site, sentence: &str, is_slow| {
        let failure = Failure { sentence: sentence.to_owned(), is_slow };
        site.look.known.send_modify(|known| known.failure = Some(failure));
    };
    fails(&site, "no answer", true);
    is_unknown(&mut site, "no answer; Puppet is asked again");
    fails(&site, "no such program", false);
    is_broken(&mut site, "no such program; Puppet is asked again");
    site.answers("lock", "lb01", true);
    assert_eq!(site.blocker(), None);
    // A failure is no news about an answer that still holds.
    fails(&site, "no answer", true);
    assert_eq!(site.blocker(), None);
    fs::remove_file(site.path("puppet.conf")).unwrap();
    is_unknown(&mut site, "puppet.conf has changed: no answer; Puppet is asked again");
    fs::create_dir(site.path("lock")).unwrap();
    is_broken(&mut site, "cannot tell whether Puppet is disabled");
}

#[test]
fn the_certname_is_puppets_present_one_or_no_run_starts() {
    let mut site = Site::new("puppet", CertnameSource::Puppet);
    site.answers("lock", "lb01", false);
    assert!(matches!(site.blocker(), Some(PuppetBlocker::Unknown(_))), "an earlier answer proves nothing");
    assert!(!site.look.confirms_certname());
    site.answers("lock", "lb01", true);
    assert_eq!(site.blocker(), None);
    assert!(site.look.confirms_certname());
    site.disable("lock", "disks");
    site.answers("lock", "lb02", false);
    assert!(!site.look.confirms_certname());
    let Some(PuppetBlocker::OtherCertname(sentence)) = site.blocker() else { panic!("a new name") };
    for words in ["is lb02", "belongs to lb01", "'trigger rename'"] {
        assert!(sentence.contains(words), "{sentence}");
    }
    // Puppet refuses such a name too, so nothing can be moved over to it.
    site.answers("lock", "LB01", true);
    let Some(PuppetBlocker::OtherCertname(sentence)) = site.blocker() else { panic!("an unusable name") };
    assert!(sentence.contains("correct it in puppet.conf") && !sentence.contains("rename"), "{sentence}");
    // The configuration has another name than the state directory, whatever Puppet's is.
    let mut site = Site::new("converge", CertnameSource::Configured("lb02".parse().unwrap()));
    site.look.known.send_modify(|known| known.puppet = Answer::NotNeeded);
    assert!(matches!(site.blocker(), Some(PuppetBlocker::OtherCertname(_))));
    assert!(!site.look.confirms_certname());
    // A configured name that the directory belongs to is the operator's choice.
    let mut site = Site::new("puppet", configured());
    site.answers("lock", "another", true);
    assert_eq!(site.blocker(), None);
    assert!(site.look.confirms_certname());
}

/// Writes a program in the place of Puppet, which is slow or fails while the file `broken` exists.
fn fake_puppet(site: &Site, broken: &str) {
    let dir = site.dir.path().display();
    let script = format!(
        "#!/bin/sh\necho asked >>{dir}/questions\nif [ -e {dir}/broken ]; then {broken}; fi\n\
         for name in agent_catalog_run_lockfile agent_disabled_lockfile lastrunreport config logdest tags skip_tags; do\n\
         echo \"$name = {dir}/$name\"\ndone\necho 'certname = lb01'\n"
    );
    fs::write(site.path("puppet"), script).unwrap();
    fs::set_permissions(site.path("puppet"), fs::Permissions::from_mode(0o755)).unwrap();
}

#[tokio::test]
async fn puppet_is_asked_on_until_it_answers() {
    let mut site = Site::new("./puppet", CertnameSource::Puppet);
    fake_puppet(&site, "echo kaput >&2; exit 1");
    fs::write(site.path("broken"), "").unwrap();
    let task = tokio::spawn(site.look.find());
    site.look.seen.wait_for(|known| known.failure.is_some()).await.unwrap();
    let blocker = site.blocker();
    assert!(
        matches!(&blocker, Some(PuppetBlocker::Broken(reason)) if reason.contains("kaput")),
        "{blocker:?}"
    );
    fs::remove_file(site.path("broken")).unwrap();
    site.look.seen.wait_for(|known| known.is_fresh).await.unwrap();
    assert_eq!(site.blocker(), None);
    assert!(fs::read_to_string(site.path("questions")).unwrap().lines().count() >= 2);
    task.abort();
}

#[tokio::test]
async fn a_cache_from_before_a_change_of_puppet_conf_is_outdated() {
    let mut site = Site::new("./puppet", configured());
    fake_puppet(&site, "exit 1");
    let ask = |site: &Site| {
        let puppet = site.look.puppet.clone();
        async move {
            puppet_settings::ask(&puppet.command, &puppet.environment, &puppet.state_dir, Attempt::FIRST)
                .await
        }
    };
    fs::write(site.path("config"), "").unwrap();
    let asked = ask(&site).await.unwrap();
    let cached =
        |site: &Site| puppet_settings::cached(&site.look.puppet.command, Path::new(site.dir.path())).unwrap();
    assert_eq!(cached(&site), asked);
    assert_eq!(asked.config_changed_at, asked.config_time());
    // While no agent runs, the configuration changes.
    fs::remove_file(site.path("config")).unwrap();
    site.look.take_over_cache();
    assert!(matches!(site.blocker(), Some(PuppetBlocker::Unknown(_))));
    ask(&site).await.unwrap();
    site.look.take_over_cache();
    assert_eq!(site.blocker(), None);
}

/// Asks the site's Puppet without the agent, as a supervisor does.
async fn ask(site: &Site) -> PuppetSettings {
    let Puppet { command, environment, state_dir, .. } = &site.look.puppet;
    puppet_settings::ask(command, environment, state_dir, Attempt::FIRST).await.unwrap()
}

fn known(site: &Site) -> Answer {
    site.look.known.borrow().puppet.clone()
}

#[tokio::test]
async fn a_cache_from_before_the_latest_change_replaces_no_later_answer() {
    let mut site = Site::new("./puppet", configured());
    fake_puppet(&site, "exit 1");
    let change = |seconds: u64| {
        let config = fs::File::create(site.path("config")).unwrap();
        config.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).unwrap();
    };
    change(1_000);
    let earlier = ask(&site).await;
    let cache = site.path("puppet-settings");
    let written = fs::read(&cache).unwrap();
    // The agent has asked for the change, and the cache is still that of the earlier question.
    change(2_000);
    let later = ask(&site).await;
    assert_ne!(earlier.config_changed_at, later.config_changed_at);
    fs::write(&cache, written).unwrap();
    let later = Answer::Settings(Arc::new(later));
    site.look.known.send_replace(Known { puppet: later.clone(), is_fresh: true, failure: None });
    site.look.asked_for = Some((site.settings("lock", "lb01").config_changed_at, Instant::now()));
    site.look.take_over_cache();
    assert!(known(&site) == later, "the later answer stays");
    assert_eq!(site.blocker(), None);
    assert!(site.look.asked_for.is_some());
    // An answer to the present file is taken over, and an earlier question no longer counts.
    let present = Answer::Settings(Arc::new(ask(&site).await));
    site.answers("elsewhere", "lb01", true);
    site.look.take_over_cache();
    assert!(known(&site) == present);
    assert_eq!(site.look.asked_for, None);
}

#[tokio::test(start_paused = true)]
async fn an_outdated_answer_is_asked_about_again_even_if_its_change_was_asked_for() {
    let mut site = site();
    fs::remove_file(site.path("puppet.conf")).unwrap();
    let mut asked = 0;
    // Each answer is one to the earlier file: a slow question, or a file that was put back for a moment.
    for _ in 0..601 {
        assert!(site.reason(false).contains("has changed"));
        asked += usize::from(site.is_asked().await);
        a_second().await;
    }
    assert_eq!(asked, 3, "at once, and every five minutes");
}

#[tokio::test(start_paused = true)]
async fn a_look_hides_no_change_from_the_agent() {
    let mut site = site();
    site.look.has_moved().await;
    site.answers("lock", "lb01", true);
    // For a delivery that arrived at the same moment.
    assert_eq!(site.blocker(), None);
    let has_moved = tokio::time::timeout(Duration::from_secs(1), site.look.has_moved()).await;
    assert!(has_moved.is_ok(), "else the certname would never be claimed");
}

#[tokio::test(start_paused = true)]
async fn the_task_that_asks_puppet_does_not_end_where_nothing_depends_on_it() {
    let site = Site::new("converge", configured());
    let find = tokio::time::timeout(Duration::from_secs(60), site.look.find()).await;
    assert!(find.is_err(), "its end would be an error of the agent");
    assert!(known(&site) == Answer::NotNeeded);
}
