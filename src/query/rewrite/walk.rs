//! The walk through an expression, from the leaves up: which labels each node's series carry, and
//! where they have to be put in.

use std::ops::Range;

use promql_parser::parser::token::{
    T_ADD, T_AT, T_BOOL, T_BY, T_COLON, T_COMMA, T_DURATION, T_FILL, T_FILL_LEFT, T_FILL_RIGHT,
    T_GROUP_LEFT, T_GROUP_RIGHT, T_IGNORING, T_LEFT_BRACKET, T_LEFT_PAREN, T_NUMBER, T_OFFSET,
    T_ON, T_RIGHT_BRACKET, T_RIGHT_PAREN, T_SUB, T_WITHOUT,
};
use promql_parser::parser::value::ValueType;
use promql_parser::parser::{BinaryExpr, Expr, VectorSelector};

use super::edits::Edits;
use super::labels::{Carried, Names, matched};
use super::selector::Selector;
use super::tokens::{Tokens, disagreement};
use super::{LabelOverlay, RewriteError};
use crate::model::Quoted;

/// A walk under way.
#[derive(Debug)]
pub(super) struct Walk<'a> {
    /// What the user wrote.
    pub(super) text: &'a str,
    pub(super) overlay: &'a LabelOverlay,
    pub(super) tokens: Tokens,
    pub(super) edits: Edits,
    /// Whether labels were put into series of the user's, which may be native histograms.
    pub(super) is_relabelled: bool,
}

/// A node that was walked through.
#[derive(Debug)]
pub(super) struct Node<'a> {
    pub(super) span: Range<usize>,
    pub(super) carried: Carried<'a>,
    pub(super) value: ValueType,
}

impl<'a> Walk<'a> {
    pub(super) fn new(text: &'a str, overlay: &'a LabelOverlay, tokens: Tokens) -> Self {
        Self {
            text,
            overlay,
            tokens,
            edits: Edits::default(),
            is_relabelled: false,
        }
    }

    /// A node whose series are looked at: none carries a label that is not the user's.
    pub(super) fn settled(&mut self, tree: &'a Expr) -> Result<Node<'a>, RewriteError> {
        let mut node = self.node(tree)?;
        if node.value == ValueType::Vector {
            let stale = std::mem::take(&mut node.carried.stale);
            self.put_in(&mut node, &stale);
        }
        Ok(node)
    }

    /// A node of which it only counts whether there are series, or which passes them on.
    pub(super) fn node(&mut self, tree: &'a Expr) -> Result<Node<'a>, RewriteError> {
        let before = self.tokens.end();
        if !matches!(tree, Expr::Binary(_)) {
            while self.tokens.accept(T_ADD) {}
        }
        let start = self.tokens.next_start().unwrap_or(before);
        let carried = match tree {
            Expr::NumberLiteral(_) => self.number()?,
            Expr::StringLiteral(_) => self.tokens.take().map(|_| Carried::default())?,
            Expr::VectorSelector(selector) => {
                let carried = self.selector(selector)?;
                self.modifiers()?;
                carried
            }
            Expr::MatrixSelector(range) => {
                let carried = self.selector(&range.vs)?;
                self.brackets()?;
                self.modifiers()?;
                carried
            }
            Expr::Subquery(subquery) => {
                let inner = self.settled(&subquery.expr)?;
                self.brackets()?;
                self.modifiers()?;
                inner.carried
            }
            Expr::Paren(paren) => {
                self.tokens.expect(T_LEFT_PAREN)?;
                let inner = self.node(&paren.expr)?;
                self.tokens.expect(T_RIGHT_PAREN)?;
                inner.carried
            }
            Expr::Unary(unary) => {
                self.tokens.expect(T_SUB)?;
                self.settled(&unary.expr)?.carried
            }
            Expr::Binary(binary) => return self.binary(binary, tree.value_type()),
            Expr::Aggregate(aggregate) => self.aggregate(aggregate)?,
            Expr::Call(call) => self.call(call, start)?,
            Expr::Extension(_) => return Err(disagreement("an extension")),
        };
        Ok(Node {
            span: start..self.tokens.end(),
            carried,
            value: tree.value_type(),
        })
    }

    /// Puts labels into the series of an instant vector, or takes them off where results shall not
    /// carry them.
    pub(super) fn put_in(&mut self, node: &mut Node<'a>, names: &Names<'a>) {
        self.is_relabelled |= !names.is_empty();
        for &name in names {
            let value = self.overlay.shown(name).unwrap_or_default();
            self.set_label(&node.span, name, value);
            node.carried.virt.remove(name);
        }
    }

    /// Wraps an instant vector so that its series carry this label.
    pub(super) fn set_label(&mut self, span: &Range<usize>, name: &str, value: &str) {
        // A dollar sign would name a part of what the pattern found.
        let value = value.replace('$', "$$");
        let (name, value) = (Quoted(name), Quoted(&value));
        let after = format!(", {name}, {value}, \"\", \"\")");
        self.edits.wrap(span, "label_replace(", after);
    }

    fn number(&mut self) -> Result<Carried<'a>, RewriteError> {
        while self.tokens.accept(T_SUB) || self.tokens.accept(T_ADD) {}
        let token = self.tokens.take()?;
        match matches!(token.id, T_NUMBER | T_DURATION) {
            true => Ok(Carried::default()),
            false => Err(disagreement(&format!("byte {}", token.span.start))),
        }
    }

    fn selector(&mut self, tree: &'a VectorSelector) -> Result<Carried<'a>, RewriteError> {
        let selector = Selector::take(&mut self.tokens, self.text, tree)?;
        let decided = selector.decide(self.overlay)?;
        if let Some(body) = decided.body {
            self.edits.replace(selector.body, body);
        }
        if decided.is_empty {
            return Ok(Carried::nothing());
        }
        let mut carried = Carried::default();
        for (name, label) in &self.overlay.0 {
            if label.is_stored {
                carried.stale.insert(name);
            } else if label.is_shown {
                carried.virt.insert(name);
            }
        }
        Ok(carried)
    }

    /// `[5m]` or `[1h:1m]`.
    fn brackets(&mut self) -> Result<(), RewriteError> {
        self.tokens.expect(T_LEFT_BRACKET)?;
        while !self.tokens.accept(T_RIGHT_BRACKET) {
            let token = self.tokens.take()?;
            if !matches!(token.id, T_DURATION | T_NUMBER | T_COLON) {
                return Err(disagreement(&format!("byte {}", token.span.start)));
            }
        }
        Ok(())
    }

    /// `offset 5m` and `@ 1`, in any order.
    fn modifiers(&mut self) -> Result<(), RewriteError> {
        loop {
            if self.tokens.accept(T_OFFSET) || self.tokens.accept(T_AT) {
                while self.tokens.accept(T_SUB) || self.tokens.accept(T_ADD) {}
                // A number, a duration, `start()` or `end()`.
                self.tokens.take()?;
                if self.tokens.accept(T_LEFT_PAREN) {
                    self.tokens.expect(T_RIGHT_PAREN)?;
                }
            } else {
                return Ok(());
            }
        }
    }

    /// `(a, b)` behind `by`, `on` and the like.
    pub(super) fn name_list(&mut self) -> Result<(), RewriteError> {
        if self.tokens.accept(T_LEFT_PAREN) {
            self.tokens.skip_past(T_RIGHT_PAREN)?;
        }
        Ok(())
    }

    /// `by (…)` or `without (…)`, where there is one.
    pub(super) fn grouping(&mut self) -> Result<(), RewriteError> {
        if self.tokens.accept(T_BY) || self.tokens.accept(T_WITHOUT) {
            self.name_list()?;
        }
        Ok(())
    }

    fn binary(&mut self, tree: &'a BinaryExpr, value: ValueType) -> Result<Node<'a>, RewriteError> {
        let mut lhs = self.settled(&tree.lhs)?;
        self.tokens.expect(tree.op.id())?;
        while let Some(
            T_BOOL | T_ON | T_IGNORING | T_GROUP_LEFT | T_GROUP_RIGHT | T_FILL | T_FILL_LEFT
            | T_FILL_RIGHT,
        ) = self.tokens.peek()
        {
            let modifier = self.tokens.take()?;
            if modifier.id != T_BOOL {
                self.name_list()?;
            }
        }
        let mut rhs = self.settled(&tree.rhs)?;
        let carried = match (lhs.value, rhs.value) {
            (ValueType::Vector, ValueType::Vector) => {
                let modifier = tree.modifier.as_ref();
                let matched = matched(tree.op.id(), modifier, &lhs.carried, &rhs.carried);
                self.put_in(&mut lhs, &matched.into_lhs);
                self.put_in(&mut rhs, &matched.into_rhs);
                matched.result
            }
            (ValueType::Vector, _) => lhs.carried,
            _ => rhs.carried,
        };
        Ok(Node {
            span: lhs.span.start..rhs.span.end,
            carried,
            value,
        })
    }

    /// One argument's comma, where it is not the first.
    pub(super) fn comma(&mut self, at: usize) -> Result<(), RewriteError> {
        match at {
            0 => Ok(()),
            _ => self.tokens.expect(T_COMMA).map(drop),
        }
    }
}
