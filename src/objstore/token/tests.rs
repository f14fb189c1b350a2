//! Tokens are fetched once for all who need them, renewed in time, and never told.

use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

#[derive(Debug)]
struct Counting {
    fetched: Arc<AtomicU32>,
    /// The fetches that fail, by number.
    fails: fn(u32) -> bool,
}

#[async_trait]
impl TokenSource for Counting {
    async fn fetch(&self) -> Result<Token, TokenError> {
        tokio::task::yield_now().await;
        let number = self.fetched.fetch_add(1, Ordering::Relaxed);
        if (self.fails)(number) {
            return Err(TokenError::NotFound {
                tried: format!("try {number}"),
                remedy: "none",
            });
        }
        Ok(Token {
            text: format!("secret-{number}"),
            lifetime: Some(Duration::from_secs(3600)),
            place: None,
        })
    }
}

fn tokens(clock: &Clock, fails: fn(u32) -> bool) -> (Tokens, Arc<AtomicU32>) {
    let fetched = Arc::new(AtomicU32::new(0));
    let source = Counting {
        fetched: Arc::clone(&fetched),
        fails,
    };
    (Tokens::new("test", source, clock.clone()), fetched)
}

#[tokio::test]
async fn all_who_need_a_token_share_one() {
    let (tokens, fetched) = tokens(&Clock::fixed(0), |_| false);
    let all = futures_util::future::join_all((0..8).map(|_| tokens.current())).await;
    assert!(
        all.iter()
            .all(|token| token.as_ref().unwrap().text == "secret-0")
    );
    assert_eq!(fetched.load(Ordering::Relaxed), 1);
    tokens.invalidate();
    assert_eq!(tokens.current().await.unwrap().text, "secret-1");
    let text = format!("{tokens:?} {:?}", tokens.current().await.unwrap());
    assert!(!text.contains("secret-"), "{text}");
}

#[tokio::test]
async fn a_failure_is_told_and_may_pass() {
    let (tokens, _) = tokens(&Clock::fixed(0), |number| number == 0);
    let fault = tokens.current().await.unwrap_err();
    assert!(fault.is_retryable(), "{fault:?}");
    assert!(
        ErrorChain(&fault).to_string().contains("try 0"),
        "{fault:?}"
    );
    let mut headers = HeaderMap::new();
    tokens.bear(&mut headers).await.unwrap();
    assert_eq!(headers[AUTHORIZATION], "Bearer secret-1");
    assert!(headers[AUTHORIZATION].is_sensitive());
}

#[test]
fn what_a_server_tells_is_cut_and_on_one_line() {
    for (body, expected) in [
        (
            r#"{"error":"invalid_grant","error_description":"no\nsuch"}"#,
            ": invalid_grant: no such",
        ),
        (
            r#"{"error":{"message":"The request you have made","code":401}}"#,
            ": The request you have made",
        ),
        ("", ""),
        ("plain\r\nwords", ": plain  words"),
    ] {
        assert_eq!(told(body.as_bytes()), expected);
    }
    assert_eq!(told("x".repeat(9999).as_bytes()).len(), TEXT_CHARS_MAX + 2);
}

#[test]
fn forms_are_encoded() {
    let text = form(&[("scope", "https://a/.default"), ("b", "c d&e")]);
    assert_eq!(text, "scope=https%3A%2F%2Fa%2F.default&b=c%20d%26e");
}
