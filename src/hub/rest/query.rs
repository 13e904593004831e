//! The query of an address: what is asked for, of which rows, in which order, how many.

use axum::extract::Query as Pairs;
use axum::http::Uri;

use crate::hub::rest::Error;
use crate::hub::rest::catalogue::Column;
use crate::hub::rest::filter::{Filters, Node};
use crate::hub::rest::select::{self, Item, Order};

/// The longest address that is read.
const ADDRESS_MAX: usize = 16 * 1024;

/// What a request asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Query {
    pub(super) items: Vec<Item>,
    pub(super) filters: Vec<Node>,
    pub(super) orders: Vec<Order>,
    pub(super) limit: Option<u32>,
    pub(super) offset: u32,
}

/// The parameters of an address, decoded, in their order.
pub(super) fn pairs(uri: &Uri) -> Result<Vec<(String, String)>, Error> {
    let length = uri.path_and_query().map_or(0, |text| text.as_str().len());
    if length > ADDRESS_MAX {
        let message = format!("the address has more than {ADDRESS_MAX} bytes");
        return Err(Error::new(414, "CG414", message)
            .with_hint("Ask for fewer values at once, or call a function with POST."));
    }
    match Pairs::<Vec<(String, String)>>::try_from_uri(uri) {
        Ok(Pairs(pairs)) => Ok(pairs),
        Err(_) => Err(Error::parse("the query cannot be read")),
    }
}

/// Reads the parameters, of the relation `from`.
pub(super) fn read(pairs: &[(String, String)], from: &str) -> Result<Query, Error> {
    let mut query = Query { items: vec![Item::All], ..Query::default() };
    let mut filters = Filters::default();
    let mut seen: Vec<&str> = Vec::new();
    for (name, value) in pairs {
        let once = matches!(name.as_str(), "select" | "order" | "limit" | "offset");
        if once && seen.contains(&name.as_str()) {
            return Err(Error::parse(format!("{name}: stands twice in the query")));
        }
        seen.push(name);
        match name.as_str() {
            "select" => query.items = select::select(value, from)?,
            "order" => query.orders = select::order(value)?,
            "limit" => query.limit = Some(number(name, value)?),
            "offset" => query.offset = number(name, value)?,
            // Of writes, and the key where it is not in a header.
            "columns" | "on_conflict" | "apikey" => {}
            _ => filters.add(name, value)?,
        }
    }
    query.filters = filters.into_nodes();
    Ok(query)
}

fn number(name: &str, value: &str) -> Result<u32, Error> {
    value.parse().map_err(|_| {
        Error::parse(format!(
            "{name}: must be a whole number from 0 to {}, not {value:?}",
            u32::MAX
        ))
    })
}

impl Query {
    /// What the columns of the answer are called, of a relation with these.
    pub(super) fn names(&self, columns: &[Column]) -> Vec<String> {
        let all = || columns.iter().map(|column| column.name.clone()).collect();
        let names = |item: &Item| match item {
            Item::All => all(),
            Item::One { name, .. } => vec![name.clone()],
        };
        self.items.iter().flat_map(names).collect()
    }

    /// Whether it asks for anything but all of everything.
    pub(super) fn is_plain(&self) -> bool {
        self.items == [Item::All]
            && self.filters.is_empty()
            && self.orders.is_empty()
            && self.limit.is_none()
            && self.offset == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read_whole_or_refused() {
        let of = |text: &str| {
            let uri: Uri = format!("/t?{text}").parse().expect("an address");
            read(&pairs(&uri)?, "t")
        };
        let query = of("select=*&order=a.desc.nullslast%2Cid.asc&offset=10&limit=10&b=neq.1")
            .expect("good");
        assert_eq!(
            (query.limit, query.offset, query.orders.len(), query.filters.len()),
            (Some(10), 10, 2, 1)
        );
        assert!(
            of("").expect("good").is_plain() && of("apikey=x&select=*").expect("good").is_plain()
        );
        for bad in ["limit=-1", "limit=a", "limit=", "offset=99999999999", "select=a&select=b", "x"]
        {
            assert_eq!(of(bad).expect_err(bad).code(), "PGRST100", "{bad}");
        }
        let long = of(&format!("id=eq.{}", "x".repeat(ADDRESS_MAX))).expect_err("too long");
        assert_eq!(long.status().as_u16(), 414);
    }
}
