//! The parameters of a request as Go's `net/http` reads them, which is what clients of Prometheus'
//! API are used to: of the body first, then of the URL; what can't be read is left out.

use std::borrow::Cow;
use std::pin::Pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method, Request};
use http_body_util::BodyExt as _;
use hyper::body::Body;
use tokio::time::{Instant, timeout, timeout_at};

use crate::store::{Gate, Running};

/// The longest form that is read; Go's limit.
pub(super) const FORM_BYTES_MAX: usize = 10 << 20;
/// Forms up to here need no turn, and no more does what is made of them.
pub(super) const FORM_BYTES_FREE: usize = 64 << 10;
/// How many longer forms are held at a time.
const LONG_FORMS_MAX: usize = 6;
/// How many wait for that.
const LONG_FORMS_WAITING_MAX: usize = 256;
/// The most parameters of a request; Go's limit.
const PARAMS_MAX: usize = 10_000;
/// How long a form may take to arrive; what is long begins anew with its turn.
const FORM_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a long form may wait for its turn.
const TURN_TIMEOUT: Duration = Duration::from_secs(60);

const FORM: &[u8] = b"application/x-www-form-urlencoded";
const POST_TOO_LARGE: &str = "http: POST too large";
const TOO_MANY: &str = "number of URL query parameters exceeded limit";

/// The turns of long forms; clones are the same ones.
#[derive(Clone, Debug)]
pub(super) struct LongForms(Gate);

/// The parameters of a request, the form's before those of the URL.
#[derive(Debug, Default)]
pub(super) struct Form {
    pairs: Vec<(Vec<u8>, Vec<u8>)>,
    /// The first thing that could not be read.
    error: Option<Cow<'static, str>>,
    /// Memory that others wait for.
    turn: Option<Running>,
}

/// The form was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum FormError {
    #[error("the request's body did not arrive within {FORM_TIMEOUT:?}")]
    TimedOut,
    #[error("the request's body broke off")]
    BrokenOff,
    #[error("too many requests with forms above {FORM_BYTES_FREE} bytes: no turn came in time")]
    NoTurn,
}

// === impl LongForms ===

impl LongForms {
    pub(super) fn new() -> Self {
        let gate = Gate::new("long forms", LONG_FORMS_MAX, LONG_FORMS_WAITING_MAX);
        Self(gate)
    }

    /// How many are held.
    #[cfg(test)]
    pub(super) fn running(&self) -> usize {
        self.0.running()
    }

    async fn turn(&self) -> Result<Running, FormError> {
        match timeout(TURN_TIMEOUT, self.0.enter()).await {
            Ok(Ok(turn)) => Ok(turn),
            // There is no place to wait in, or waiting was in vain.
            Ok(Err(_)) | Err(_) => Err(FormError::NoTurn),
        }
    }
}

// === impl Form ===

impl Form {
    /// Reads the parameters of a request.
    ///
    /// # Errors
    /// Where the body does not arrive, or has no turn; what is wrong in it is no error here.
    pub(super) async fn read<B: Body<Data = Bytes> + Send>(
        request: Request<B>,
        long_forms: &LongForms,
    ) -> Result<Self, FormError> {
        let (parts, body) = request.into_parts();
        let mut form = Self::default();
        if parts.method == Method::POST && is_form(&parts.headers) {
            form.read_body(body, long_forms).await?;
        }
        form.take(parts.uri.query().unwrap_or_default().as_bytes());
        Ok(form)
    }

    async fn read_body<B: Body<Data = Bytes> + Send>(
        &mut self,
        body: B,
        long_forms: &LongForms,
    ) -> Result<(), FormError> {
        let mut body = std::pin::pin!(body);
        let mut text = BytesMut::new();
        let mut deadline = Instant::now() + FORM_TIMEOUT;
        loop {
            let arriving = timeout_at(deadline, next_data(body.as_mut()));
            let Some(data) = arriving.await.map_err(|_| FormError::TimedOut)?? else {
                break;
            };
            if data.len() > FORM_BYTES_MAX - text.len() {
                self.error = Some(Cow::Borrowed(POST_TOO_LARGE));
                return Ok(());
            }
            if text.len() + data.len() > FORM_BYTES_FREE && self.turn.is_none() {
                self.turn = Some(long_forms.turn().await?);
                deadline = Instant::now() + FORM_TIMEOUT;
            }
            text.extend_from_slice(&data);
        }
        self.take(&text);
        Ok(())
    }

    /// Appends what a text says.
    fn take(&mut self, text: &[u8]) {
        let count = text.split(|&byte| byte == b'&').count();
        if count > PARAMS_MAX {
            self.error.get_or_insert(Cow::Borrowed(TOO_MANY));
            return;
        }
        let mut error = None;
        for pair in text.split(|&byte| byte == b'&') {
            if pair.contains(&b';') {
                error = Some(Cow::Borrowed("invalid semicolon separator in query"));
                continue;
            }
            if pair.is_empty() {
                continue;
            }
            let mut sides = pair.splitn(2, |&byte| byte == b'=');
            let (name, value) = (sides.next(), sides.next());
            let name = unescaped(name.unwrap_or_default());
            let value = unescaped(value.unwrap_or_default());
            match (name, value) {
                (Ok(name), Ok(value)) => self.pairs.push((name, value)),
                (Err(bad), _) | (_, Err(bad)) => {
                    error.get_or_insert(Cow::Owned(format!("invalid URL escape {bad:?}")));
                }
            }
        }
        if self.error.is_none() {
            self.error = error;
        }
    }

    /// What could not be read, in Go's words.
    pub(super) fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// The first value of a parameter; empty where there is none.
    pub(super) fn first(&self, name: &str) -> &[u8] {
        self.all(name).next().unwrap_or_default()
    }

    /// The same as text, what is no UTF-8 replaced.
    pub(super) fn text(&self, name: &str) -> Cow<'_, str> {
        String::from_utf8_lossy(self.first(name))
    }

    /// All values of a parameter.
    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        let pairs = self.pairs.iter();
        pairs
            .filter(move |(known, _)| known == name.as_bytes())
            .map(|(_, value)| value.as_slice())
    }

    /// Everything, in order.
    pub(super) fn pairs(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let pairs = self.pairs.iter();
        pairs.map(|(name, value)| (name.as_slice(), value.as_slice()))
    }

    /// Drops the parameters; the turn is for what was made of them.
    pub(super) fn into_turn(self) -> Option<Running> {
        self.turn
    }

    /// The parameters of a URL's query.
    #[cfg(test)]
    pub(super) fn of(query: &str) -> Self {
        let mut form = Self::default();
        form.take(query.as_bytes());
        form
    }
}

/// The next bytes of a body; `None` at its end.
async fn next_data<B>(mut body: Pin<&mut B>) -> Result<Option<Bytes>, FormError>
where
    B: Body<Data = Bytes>,
{
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| FormError::BrokenOff)?;
        if let Ok(data) = frame.into_data() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}

/// Whether the headers say that the body is a form.
fn is_form(headers: &HeaderMap) -> bool {
    let value = headers.get(CONTENT_TYPE).map(|value| value.as_bytes());
    let kind = value.and_then(|value| value.split(|&byte| byte == b';').next());
    kind.is_some_and(|kind| kind.trim_ascii().eq_ignore_ascii_case(FORM))
}

/// Undoes percent-encoding and `+`; the text at fault where it is none.
fn unescaped(text: &[u8]) -> Result<Vec<u8>, String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'+' => out.push(b' '),
            b'%' => {
                let digits = after.get(..2).and_then(|hex| {
                    let digit = |byte: u8| char::from(byte).to_digit(16);
                    let [high, low] = <[u8; 2]>::try_from(hex).ok()?;
                    u8::try_from(digit(high)? << 4 | digit(low)?).ok()
                });
                let Some(decoded) = digits else {
                    let bad = after.get(..2).unwrap_or(after);
                    return Err(format!("%{}", String::from_utf8_lossy(bad)));
                };
                out.push(decoded);
                rest = after.get(2..).unwrap_or_default();
            }
            byte => out.push(byte),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use http_body_util::{Full, StreamBody};
    use proptest::prelude::*;

    use super::*;

    fn post(content_type: &str, uri: &str, body: Vec<u8>) -> Request<Full<Bytes>> {
        let request = Request::post(uri).header(CONTENT_TYPE, content_type);
        request.body(Full::new(Bytes::from(body))).unwrap()
    }

    async fn read(request: Request<Full<Bytes>>) -> Form {
        Form::read(request, &LongForms::new()).await.unwrap()
    }

    fn pairs(form: &Form) -> Vec<(String, String)> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        form.pairs().map(|(n, v)| (text(n), text(v))).collect()
    }

    #[tokio::test]
    async fn the_form_stands_before_the_url() {
        let kind = "Application/X-WWW-Form-URLencoded; charset=utf-8";
        let form = read(post(kind, "/x?a=3&b=4", b"a=1&a=2".to_vec())).await;
        assert_eq!(form.text("a"), "1");
        assert_eq!(form.all("a").collect::<Vec<_>>(), [b"1", b"2", b"3"]);
        assert_eq!((form.text("b"), form.text("c")), ("4".into(), "".into()));
        for kind in ["application/json", "text/plain", ""] {
            let form = read(post(kind, "/x?b=4", b"a=1".to_vec())).await;
            assert_eq!(pairs(&form), [("b".to_owned(), "4".to_owned())], "{kind}");
            assert_eq!(form.error(), None);
        }
        let get = Request::get("/x?q=1").header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        let form = read(get.body(Full::new(Bytes::from_static(b"a=1"))).unwrap()).await;
        assert_eq!(form.text("a"), "");
    }

    #[test]
    fn what_can_not_be_read_is_left_out_and_told() {
        for (query, left, error) in [
            ("a=1&b=%zz&c=2", 2, Some("invalid URL escape \"%zz\"")),
            ("a=1&b=%4", 1, Some("invalid URL escape \"%4\"")),
            (
                "a=1;b=2&c=3",
                1,
                Some("invalid semicolon separator in query"),
            ),
            ("&&a&=b&", 2, None),
            ("a=b=c%20+%2B", 1, None),
        ] {
            let form = Form::of(query);
            assert_eq!(form.pairs().count(), left, "{query}");
            assert_eq!(form.error(), error, "{query}");
        }
        assert_eq!(Form::of("a=b=c%20+%2B").text("a"), "b=c  +");
        assert_eq!(Form::of("a=%ff").first("a"), [0xff]);
        let many = "a&".repeat(PARAMS_MAX);
        let form = Form::of(&many);
        assert_eq!((form.pairs().count(), form.error()), (0, Some(TOO_MANY)));
    }

    #[tokio::test]
    async fn forms_are_read_up_to_their_limit() {
        let kind = "application/x-www-form-urlencoded";
        let of = |bytes: usize| [b"a=".to_vec(), vec![b'x'; bytes - 2]].concat();
        let form = read(post(kind, "/x?b=1", of(FORM_BYTES_MAX))).await;
        assert_eq!(form.first("a").len(), FORM_BYTES_MAX - 2);
        let form = read(post(kind, "/x?b=1", of(FORM_BYTES_MAX + 1))).await;
        assert_eq!((form.text("a"), form.text("b")), ("".into(), "1".into()));
        assert_eq!(form.error(), Some(POST_TOO_LARGE));
    }

    #[tokio::test]
    async fn only_few_long_forms_are_held() {
        let kind = "application/x-www-form-urlencoded";
        let turns = LongForms::new();
        let long = || post(kind, "/x", vec![b'x'; FORM_BYTES_FREE + 1]);
        let mut held = Vec::new();
        for _ in 0..LONG_FORMS_MAX {
            held.push(Form::read(long(), &turns).await.unwrap());
        }
        let mut next = Box::pin(Form::read(long(), &turns));
        assert!(next.as_mut().now_or_never().is_none());
        let short = post(kind, "/x", vec![b'x'; FORM_BYTES_FREE]);
        assert!(Form::read(short, &turns).now_or_never().is_some());
        held.pop();
        assert!(next.now_or_never().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_form_without_a_turn_is_not_one_that_did_not_arrive() {
        let kind = "application/x-www-form-urlencoded";
        let turns = LongForms::new();
        let long = || post(kind, "/x", vec![b'x'; FORM_BYTES_FREE + 1]);
        let mut held = Vec::new();
        for _ in 0..LONG_FORMS_MAX {
            held.push(Form::read(long(), &turns).await.unwrap());
        }
        let begun = Instant::now();
        let refused = Form::read(long(), &turns).await.unwrap_err();
        assert_eq!(
            (refused, begun.elapsed()),
            (FormError::NoTurn, TURN_TIMEOUT)
        );
        let mut waiting: Vec<_> = (0..LONG_FORMS_WAITING_MAX)
            .map(|_| Box::pin(Form::read(long(), &turns)))
            .collect();
        for form in &mut waiting {
            assert!(form.as_mut().now_or_never().is_none());
        }
        let refused = Form::read(long(), &turns).now_or_never();
        assert_eq!(refused.unwrap().unwrap_err(), FormError::NoTurn);

        type Arriving = Result<hyper::body::Frame<Bytes>, std::io::Error>;
        let never = StreamBody::new(futures_util::stream::pending::<Arriving>());
        let request = Request::post("/x").header(CONTENT_TYPE, kind);
        let late = Form::read(request.body(never).unwrap(), &turns)
            .await
            .unwrap_err();
        assert_eq!(late, FormError::TimedOut);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(text: Vec<u8>) {
            let mut form = Form::default();
            form.take(&text);
            let bytes: usize = form.pairs().map(|(n, v)| n.len() + v.len()).sum();
            prop_assert!(bytes <= text.len());
        }
    }
}
