//! Files that change under the running server.

use std::fs;

use super::*;

const KEPT: &str = "the one before stays in force";

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_renewed_certificate_is_shown_from_the_next_connection_on() {
    let web = Web::start(TLS);
    let shown = |answer: Answer| answer.shown.unwrap();
    let first = shown(web.get(&web.client()).await.unwrap());
    assert_eq!(first, shown(web.get(&web.client()).await.unwrap()));
    // Certificate and key do not fit together between the two writes; nobody notices.
    let renewed = web.ca.sign("localhost");
    renewed.write(web.site.scratch(), "server");
    let second = shown(web.get(&web.client()).await.unwrap());
    assert_ne!(first, second);
    fs::write(web.site.scratch().join("server.pem"), "broken").unwrap();
    assert_eq!(second, shown(web.get(&web.client()).await.unwrap()));
    web.outrigger.process.wait_for_line("why", |line| {
        line.contains("level=error")
            && line.contains("those before stay in force")
            && line.contains("server.pem")
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_renewed_authority_counts_from_the_next_connection_on() {
    let web = Web::start(MUTUAL);
    let other = Ca::new();
    let (old, new) = (
        web.client().showing(&web.ca.sign("scraper")),
        web.client().showing(&other.sign("scraper")),
    );
    assert_eq!(web.status(&old).await, 200);
    assert!(web.get(&new).await.is_err());
    replace(&web.site.scratch().join("ca.pem"), other.pem());
    assert!(web.get(&old).await.is_err());
    assert_eq!(web.status(&new).await, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn users_count_from_the_next_request_on() {
    let web = Web::start(&users(&[("alice", "old")]));
    let status = async |user: &str, password: &str| {
        let answer = get_plain(web.address(), "/-/healthy", Some((user, password)));
        answer.await.unwrap().status
    };
    assert_eq!(status("alice", "old").await, 200);
    web.write(&users(&[("alice", "new"), ("bob", "b")]));
    assert_eq!(status("alice", "old").await, 401);
    assert_eq!(status("alice", "new").await, 200);
    assert_eq!(status("bob", "b").await, 200);
    web.write(&users(&[("bob", "b")]));
    assert_eq!(status("alice", "new").await, 401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_bad_new_file_is_told_and_the_old_one_stays_in_force() {
    let web = Web::start(&format!("{TLS}{}", users(&[("alice", "secret")])));
    let alice = web.client().with_password("alice", "secret");
    for (bad, said) in [
        ("basic_auth_user: {}\n", "`basic_auth_user` in line 1"),
        ("basic_auth_users: {alice: secret}\n", "not a bcrypt hash"),
        ("", "no longer asks for TLS"),
        (TLS, "no longer asks for basic authentication"),
    ] {
        web.write(bad);
        assert_eq!(web.status(&alice).await, 200, "{bad}");
        assert_eq!(web.status(&web.client()).await, 401, "{bad}");
        web.outrigger.process.wait_for_line(said, |line| {
            line.contains("level=error") && line.contains(KEPT) && line.contains(said)
        });
    }
    fs::remove_file(file(&web.site)).unwrap();
    assert_eq!(web.status(&alice).await, 200);
    web.write(&format!("{TLS}{}", users(&[("alice", "other")])));
    assert_eq!(web.status(&alice).await, 401);
    let (_, log) = web.outrigger.stop();
    // Once for each change, however often it is looked at.
    assert_eq!(
        log.matches("`basic_auth_user` in line 1").count(),
        1,
        "{log}"
    );
}
