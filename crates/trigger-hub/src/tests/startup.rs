//! The settings with which a hub starts, and those with which it does not.

use super::*;

#[tokio::test]
async fn only_loopback_is_listened_on_without_tls() {
    let dir = TempDir::new().unwrap();
    for listen in ["0.0.0.0:0", "192.0.2.1:8145", "[::]:0"] {
        assert_eq!(
            start_fails(listen, dir.path()).await,
            format!(
                "refusing to listen on {listen} without TLS, since other machines reach that address: leave out \
                 'tls = false', or listen on loopback, such as 127.0.0.1:8145"
            )
        );
    }
    let mut exposed = settings("127.0.0.1:0", dir.path());
    exposed.health_listen = Some("0.0.0.0:8146".to_owned());
    let ready = |address| panic!("it must not listen on {address}");
    let error = run(exposed, ready, std::future::pending()).await.unwrap_err().to_string();
    assert!(error.starts_with("refusing to answer health checks on 0.0.0.0:8146 without TLS"), "{error}");
    for listen in ["", "8145", "hub.example.com:8145", "127.0.0.1", "localhost:port"] {
        let error = start_fails(listen, dir.path()).await;
        assert!(error.starts_with(&format!("'{listen}' is not an address to listen on")), "{error}");
    }
    for listen in ["localhost:0", "[::1]:0"] {
        // Many containers have no IPv6, and then no process can listen there.
        if std::net::TcpListener::bind(listen).is_err() {
            let error = start_fails(listen, dir.path()).await;
            assert!(error.starts_with(&format!("cannot listen on {listen}")), "{error}");
            continue;
        }
        let hub = Running::start_on(listen, dir.path()).await;
        put(&hub.store(), "/a", "1").await;
        hub.stop().await;
    }
}

#[tokio::test]
async fn what_is_taken_is_named() {
    let (dir, other) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let hub = Running::start(dir.path()).await;
    let listen = hub.address.to_string();
    assert_eq!(
        start_fails(&listen, other.path()).await,
        format!(
            "cannot listen on {listen}: the port is in use; stop what uses it (another hub?) \
             or give another --listen"
        )
    );
    assert_eq!(
        start_fails("127.0.0.1:0", dir.path()).await,
        format!(
            "the data directory {} is in use by another hub (process {}): a data directory serves one hub",
            dir.path().display(),
            std::process::id()
        )
    );
    put(&hub.store(), "/a", "1").await;
    hub.stop().await;
}

#[tokio::test]
async fn a_data_dir_that_cannot_be_used_is_named() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "not a directory").unwrap();
    let error = start_fails("127.0.0.1:0", &file.join("data")).await;
    assert!(
        error.starts_with(&format!("cannot use the data directory {}/data: Not a directory", file.display())),
        "{error}"
    );

    let foreign = TempDir::new().unwrap();
    std::fs::write(database::file(foreign.path()), "this is no database, whatever it is called").unwrap();
    let error = start_fails("127.0.0.1:0", foreign.path()).await;
    assert!(error.contains("file is not a database"), "{error}");
}

#[tokio::test]
async fn a_newer_or_foreign_database_is_left_alone() {
    let dir = TempDir::new().unwrap();
    Running::start(dir.path()).await.stop().await;
    let path = database::file(dir.path());
    let alter = |sql| Connection::open(&path).unwrap().execute_batch(sql).unwrap();
    alter("PRAGMA user_version = 2");
    let error = start_fails("127.0.0.1:0", dir.path()).await;
    assert!(
        error.contains("was written by a newer version of trigger (schema 2; this one knows 1)"),
        "{error}"
    );
    alter("PRAGMA user_version = 1; PRAGMA application_id = 1");
    let error = start_fails("127.0.0.1:0", dir.path()).await;
    assert!(error.ends_with("is a database, but not a hub's: give another --data-dir"), "{error}");
}
