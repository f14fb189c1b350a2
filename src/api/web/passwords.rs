//! Basic authentication against bcrypt hashes.
//!
//! A hash is made to be slow, so checks run off the network's threads, one at a time, and what was
//! found right is remembered. Whoever asks learns nothing about which users there are: for an
//! unknown one the hash of another is checked.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;

use crate::lifecycle::blocking;

/// Checked credentials that are remembered; basic authentication is for a few users.
pub(super) const REMEMBERED_MAX: usize = 100;
/// Checks that wait for their turn; more are told to come back. At a bcrypt cost of 10 these take
/// about four seconds.
pub(super) const WAITING_MAX: usize = 64;

/// Users and their hashes, all of them found to be of the form.
#[derive(Clone, Default)]
pub(super) struct Users(BTreeMap<String, Arc<str>>);

/// Checks passwords, and remembers those that were right.
#[derive(Debug)]
pub(super) struct Passwords {
    turn: Arc<Semaphore>,
    waiting: Semaphore,
    remembered: Mutex<VecDeque<Fingerprint>>,
}

/// What came of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Granted,
    Denied,
    /// Too many checks wait already.
    Busy,
}

/// Stands for user, hash and password together. With another hash the password is checked anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fingerprint([u8; 32]);

/// What a client shows.
struct Credentials {
    user: Vec<u8>,
    password: Vec<u8>,
}

// === impl Users ===

impl Users {
    /// Of names and bcrypt hashes.
    pub(super) fn new(hashes: BTreeMap<String, String>) -> Self {
        let hashes = hashes.into_iter();
        Self(hashes.map(|(name, hash)| (name, hash.into())).collect())
    }

    /// Whether nobody needs a password.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn hash(&self, user: &[u8]) -> Option<&Arc<str>> {
        self.0.get(std::str::from_utf8(user).ok()?)
    }

    /// A hash that is checked in vain for an unknown user: always the same one for the same name,
    /// so that its cost tells no more than a known user's does.
    fn decoy(&self, user: &[u8]) -> Option<&Arc<str>> {
        let [a, b, c, d, ..]: [u8; 32] = Sha256::digest(user).into();
        let number = usize::try_from(u32::from_le_bytes([a, b, c, d])).unwrap_or_default();
        let at = number.checked_rem(self.0.len())?;
        self.0.values().nth(at)
    }
}

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

// === impl Passwords ===

impl Default for Passwords {
    fn default() -> Self {
        Self {
            turn: Arc::new(Semaphore::new(1)),
            waiting: Semaphore::new(WAITING_MAX),
            remembered: Mutex::default(),
        }
    }
}

impl Passwords {
    /// Whether these headers show one of the users with the right password.
    pub(super) async fn check(&self, users: &Users, headers: &HeaderMap) -> Access {
        let Some(Credentials { user, password }) = Credentials::of(headers) else {
            return Access::Denied;
        };
        // All that follows is done for known users and unknown ones alike.
        let (known, decoy) = (users.hash(&user), users.decoy(&user));
        let Some(hash) = known.or(decoy) else {
            return Access::Denied;
        };
        let fingerprint = Fingerprint::of([&user, hash.as_bytes(), &password]);
        let granted = || self.remembers(fingerprint) && known.is_some();
        if granted() {
            return Access::Granted;
        }
        let Ok(_place) = self.waiting.try_acquire() else {
            return Access::Busy;
        };
        let turn = Arc::clone(&self.turn).acquire_owned().await;
        // Whoever was before us may have shown the same.
        if granted() {
            return Access::Granted;
        }
        let hash = Arc::clone(hash);
        let is_right = blocking(move || {
            let is_right = bcrypt::verify(password, &hash).unwrap_or_else(|error| {
                tracing::debug!(err = %error, "a password can't be checked");
                false
            });
            // Held until here, also when nobody waits for the answer any more.
            drop(turn);
            is_right
        });
        match is_right.await && known.is_some() {
            true => {
                self.remember(fingerprint);
                Access::Granted
            }
            false => Access::Denied,
        }
    }

    fn remembers(&self, fingerprint: Fingerprint) -> bool {
        let remembered = self.remembered.lock();
        let remembered = remembered.unwrap_or_else(PoisonError::into_inner);
        remembered.contains(&fingerprint)
    }

    /// The oldest are forgotten.
    fn remember(&self, fingerprint: Fingerprint) {
        let remembered = self.remembered.lock();
        let mut remembered = remembered.unwrap_or_else(PoisonError::into_inner);
        remembered.truncate(REMEMBERED_MAX - 1);
        remembered.push_front(fingerprint);
    }
}

impl Fingerprint {
    /// Each part with its length, so that no two lists of parts look alike.
    fn of(parts: [&[u8]; 3]) -> Self {
        let mut digest = Sha256::new();
        for part in parts {
            digest.update((part.len() as u64).to_le_bytes());
            digest.update(part);
        }
        Self(digest.finalize().into())
    }
}

impl Credentials {
    /// Those of the first `Authorization` header; `None` where it is not of the `Basic` scheme.
    fn of(headers: &HeaderMap) -> Option<Self> {
        let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
        let (scheme, encoded) = value.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("basic") {
            return None;
        }
        let decoded = BASE64_STANDARD.decode(encoded).ok()?;
        let colon = decoded.iter().position(|byte| *byte == b':')?;
        let (user, password) = decoded.split_at_checked(colon)?;
        Some(Self {
            user: user.to_vec(),
            password: password.get(1..)?.to_vec(),
        })
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn users(named: &[(&str, &str)]) -> Users {
        let hashed = |(user, password): &(&str, &str)| {
            ((*user).to_owned(), bcrypt::hash(password, 4).unwrap())
        };
        Users::new(named.iter().map(hashed).collect())
    }

    fn shown(authorization: &str) -> HeaderMap {
        let value = HeaderValue::from_str(authorization).unwrap();
        [(AUTHORIZATION, value)].into_iter().collect()
    }

    fn basic(user: &str, password: &str) -> HeaderMap {
        let encoded = BASE64_STANDARD.encode(format!("{user}:{password}"));
        shown(&format!("Basic {encoded}"))
    }

    fn remembered(passwords: &Passwords) -> usize {
        passwords.remembered.lock().unwrap().len()
    }

    #[tokio::test]
    async fn only_the_right_password_of_a_known_user_is_let_in() {
        let users = users(&[("alice", "secret"), ("bob", ""), ("carol", "with:colon")]);
        let passwords = Passwords::default();
        for (headers, expected) in [
            (basic("alice", "secret"), Access::Granted),
            (basic("alice", "secret"), Access::Granted),
            (basic("alice", "Secret"), Access::Denied),
            (basic("alice", ""), Access::Denied),
            (basic("bob", "secret"), Access::Denied),
            (basic("bob", ""), Access::Granted),
            (basic("carol", "with:colon"), Access::Granted),
            // One of these is right for the hash that stands in for the unknown user's.
            (basic("mallory", "secret"), Access::Denied),
            (basic("mallory", ""), Access::Denied),
            (basic("mallory", "with:colon"), Access::Denied),
            (basic("", ""), Access::Denied),
            (shown("bAsIc YWxpY2U6c2VjcmV0"), Access::Granted),
            (shown("Basic YWxpY2U6c2VjcmV0="), Access::Denied),
            (shown("Basic YWxpY2U"), Access::Denied),
            (shown("Basic"), Access::Denied),
            (shown("Bearer YWxpY2U6c2VjcmV0"), Access::Denied),
            (HeaderMap::new(), Access::Denied),
        ] {
            let found = passwords.check(&users, &headers).await;
            assert_eq!(found, expected, "{headers:?}");
        }
        assert_eq!(remembered(&passwords), 3);
    }

    /// A hash that another implementation made (the test vectors of crypt_blowfish), and passwords
    /// that are longer than what bcrypt looks at, which Go cuts off too.
    #[tokio::test]
    async fn hashes_of_others_and_long_passwords_are_checked_as_go_does() {
        let vector = "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW";
        let long = "x".repeat(72);
        let users = Users::new(BTreeMap::from([
            ("openwall".to_owned(), vector.to_owned()),
            ("long".to_owned(), bcrypt::hash(&long, 4).unwrap()),
        ]));
        let passwords = Passwords::default();
        for (headers, expected) in [
            (basic("openwall", "U*U"), Access::Granted),
            (basic("openwall", "U*U*"), Access::Denied),
            (basic("long", &long), Access::Granted),
            (basic("long", &format!("{long}more")), Access::Granted),
            (basic("long", &long[1..]), Access::Denied),
            (basic("long", "x\0x"), Access::Denied),
        ] {
            assert_eq!(passwords.check(&users, &headers).await, expected);
        }
    }

    #[tokio::test]
    async fn a_password_is_checked_anew_once_its_hash_changed() {
        let passwords = Passwords::default();
        let headers = basic("alice", "old");
        let before = users(&[("alice", "old")]);
        assert_eq!(passwords.check(&before, &headers).await, Access::Granted);
        let after = users(&[("alice", "new")]);
        assert_eq!(passwords.check(&after, &headers).await, Access::Denied);
        let gone = users(&[("bob", "old")]);
        assert_eq!(passwords.check(&gone, &headers).await, Access::Denied);
    }

    #[test]
    fn no_more_is_remembered_than_the_limit() {
        let passwords = Passwords::default();
        let fingerprint = |n: usize| Fingerprint::of([&n.to_le_bytes(), b"", b""]);
        for n in 0..=REMEMBERED_MAX {
            passwords.remember(fingerprint(n));
        }
        assert_eq!(remembered(&passwords), REMEMBERED_MAX);
        assert!(!passwords.remembers(fingerprint(0)));
        assert!((1..=REMEMBERED_MAX).all(|n| passwords.remembers(fingerprint(n))));
    }

    #[test]
    fn parts_are_kept_apart() {
        let one = Fingerprint::of([b"ab", b"c", b""]);
        assert_ne!(one, Fingerprint::of([b"a", b"bc", b""]));
        assert_ne!(one, Fingerprint::of([b"ab", b"", b"c"]));
    }

    #[tokio::test]
    async fn past_the_limit_of_waiting_checks_the_next_is_told_to_come_back() {
        let users = users(&[("alice", "secret")]);
        let passwords = Passwords::default();
        let turn = Arc::clone(&passwords.turn).acquire_owned().await.unwrap();
        let headers = basic("alice", "wrong");
        let mut waiting: Vec<_> = (0..WAITING_MAX)
            .map(|_| Box::pin(passwords.check(&users, &headers)))
            .collect();
        for check in &mut waiting {
            assert!(futures_util::poll!(check).is_pending());
        }
        assert_eq!(passwords.check(&users, &headers).await, Access::Busy);
        // One goes away, and there is a place.
        drop(waiting.pop());
        let headers = basic("alice", "secret");
        let mut next = Box::pin(passwords.check(&users, &headers));
        assert!(futures_util::poll!(&mut next).is_pending());
        drop(turn);
        drop(waiting);
        assert_eq!(next.await, Access::Granted);
    }

    #[test]
    fn debug_shows_no_hash() {
        let text = format!("{:?}", users(&[("alice", "secret")]));
        assert_eq!(text, "{\"alice\"}");
    }
}
