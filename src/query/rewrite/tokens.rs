//! The tokens of an expression with their places in the text, as the parser saw them.
//!
//! The parser's tree does not say where in the text a node stands. So the tree is walked beside the
//! tokens: what a node consists of is known, and so is how many tokens it takes.

use std::ops::Range;

use lrpar::{Lexeme as _, Lexer as _};
use promql_parser::parser::lexer;
use promql_parser::parser::token::{T_EOF, TokenId};

use super::RewriteError;
use super::dialect::Readable;

/// A token and where it stands, in bytes.
#[derive(Clone, Debug)]
pub(super) struct Token {
    pub(super) id: TokenId,
    pub(super) span: Range<usize>,
}

/// The tokens that are left.
#[derive(Debug)]
pub(super) struct Tokens {
    tokens: Vec<Token>,
    at: usize,
}

impl Tokens {
    /// Those of a text, with their places in the original.
    pub(super) fn of(readable: &Readable) -> Result<Self, RewriteError> {
        let lexer = lexer(&readable.text).map_err(RewriteError::Syntax)?;
        let tokens = lexer.iter().filter_map(Result::ok).map(|lexeme| Token {
            id: lexeme.tok_id(),
            span: readable.in_original(lexeme.span().start()..lexeme.span().end()),
        });
        Ok(Self {
            tokens: tokens.filter(|token| token.id != T_EOF).collect(),
            at: 0,
        })
    }

    /// How many of all tokens are one of `ids`.
    pub(super) fn count(&self, is_counted: impl Fn(TokenId) -> bool) -> usize {
        let counted = self.tokens.iter().filter(|token| is_counted(token.id));
        counted.count()
    }

    /// The next token's kind.
    pub(super) fn peek(&self) -> Option<TokenId> {
        self.tokens.get(self.at).map(|token| token.id)
    }

    /// Where the next token begins.
    pub(super) fn next_start(&self) -> Option<usize> {
        self.tokens.get(self.at).map(|token| token.span.start)
    }

    /// Takes the next token.
    pub(super) fn take(&mut self) -> Result<Token, RewriteError> {
        let token = self.tokens.get(self.at).cloned();
        self.at += 1;
        token.ok_or_else(|| disagreement("the end of the text"))
    }

    /// Takes the next token, which has to be this one.
    pub(super) fn expect(&mut self, id: TokenId) -> Result<Token, RewriteError> {
        let token = self.take()?;
        match token.id == id {
            true => Ok(token),
            false => Err(disagreement(&format!("byte {}", token.span.start))),
        }
    }

    /// Takes the next token where it is this one.
    pub(super) fn accept(&mut self, id: TokenId) -> bool {
        let is_it = self.peek() == Some(id);
        self.at += usize::from(is_it);
        is_it
    }

    /// Takes all up to the next token of this kind, and that.
    pub(super) fn skip_past(&mut self, id: TokenId) -> Result<Token, RewriteError> {
        loop {
            let token = self.take()?;
            if token.id == id {
                return Ok(token);
            }
        }
    }

    /// Where the last taken token ended.
    pub(super) fn end(&self) -> usize {
        let last = self.at.checked_sub(1).and_then(|at| self.tokens.get(at));
        last.map_or(0, |token| token.span.end)
    }

    /// Whether all are taken.
    pub(super) fn is_done(&self) -> bool {
        self.at >= self.tokens.len()
    }
}

/// The parser's tree and its tokens tell different stories, so where to change the text is not
/// known.
pub(super) fn disagreement(place: &str) -> RewriteError {
    RewriteError::Unsupported {
        what: format!("expression: its parts were not found again at {place}"),
    }
}
