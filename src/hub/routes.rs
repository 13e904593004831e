//! Routes that can be listed: each is written down as it is added, so that what is served, what the policies cover
//! and what the API's description tells can be compared.

use std::convert::Infallible;
use std::fmt;

use axum::extract::Request;
use axum::handler::Handler;
use axum::response::IntoResponse;
use axum::routing::{self, MethodRouter};
use axum::{Extension, Router};
use tower::{Layer, Service};

use crate::hub::openapi::Fragment;

/// One route: a method on a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Route {
    /// As `/api/messages/{id}`: a part in braces stands for any one part, `{*rest}` for all that follow.
    pub path: &'static str,
    /// The method, or `*` where one handler answers all.
    pub method: &'static str,
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.path)
    }
}

/// An [`axum::Router`] that knows its routes. `GET` answers `HEAD` as well, as there.
pub struct Routes<S = ()> {
    router: Router<S>,
    list: Vec<Route>,
    fragments: Vec<Fragment>,
}

impl<S> fmt::Debug for Routes<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Routes").field("list", &self.list).finish_non_exhaustive()
    }
}

impl<S: Clone + Send + Sync + 'static> Default for Routes<S> {
    fn default() -> Self {
        Self::new()
    }
}

impl<S: Clone + Send + Sync + 'static> Routes<S> {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self { router: Router::new(), list: Vec::new(), fragments: Vec::new() }
    }

    /// Answers `GET` and `HEAD`.
    #[must_use]
    pub fn get<H: Handler<T, S>, T: 'static>(self, path: &'static str, handler: H) -> Self {
        self.add("GET", path, routing::get(handler))
    }

    /// Answers `POST`.
    #[must_use]
    pub fn post<H: Handler<T, S>, T: 'static>(self, path: &'static str, handler: H) -> Self {
        self.add("POST", path, routing::post(handler))
    }

    /// Answers `PUT`.
    #[must_use]
    pub fn put<H: Handler<T, S>, T: 'static>(self, path: &'static str, handler: H) -> Self {
        self.add("PUT", path, routing::put(handler))
    }

    /// Answers `PATCH`.
    #[must_use]
    pub fn patch<H: Handler<T, S>, T: 'static>(self, path: &'static str, handler: H) -> Self {
        self.add("PATCH", path, routing::patch(handler))
    }

    /// Answers `DELETE`.
    #[must_use]
    pub fn delete<H: Handler<T, S>, T: 'static>(self, path: &'static str, handler: H) -> Self {
        self.add("DELETE", path, routing::delete(handler))
    }

    /// Answers `OPTIONS`.
    #[must_use]
    pub fn options<H: Handler<T, S>, T: 'static>(self, path: &'static str, handler: H) -> Self {
        self.add("OPTIONS", path, routing::options(handler))
    }

    /// Answers every method that nothing else answers.
    #[must_use]
    pub fn any<H: Handler<T, S>, T: 'static>(self, path: &'static str, handler: H) -> Self {
        self.add("*", path, routing::any(handler))
    }

    /// Answers what no route does.
    #[must_use]
    pub(crate) fn fallback<H: Handler<T, S>, T: 'static>(self, handler: H) -> Self {
        Self { router: self.router.fallback(handler), ..self }
    }

    fn add(mut self, method: &'static str, path: &'static str, handler: MethodRouter<S>) -> Self {
        self.list.push(Route { path, method });
        Self { router: self.router.route(path, handler), ..self }
    }

    /// These and those of `other`.
    ///
    /// # Panics
    /// When both have a route for the same method and path.
    #[must_use]
    pub fn merge(mut self, other: Self) -> Self {
        self.list.extend(other.list);
        self.fragments.extend(other.fragments);
        Self { router: self.router.merge(other.router), ..self }
    }

    /// Puts a layer around the routes there are.
    #[must_use]
    pub fn layer<L>(self, layer: L) -> Self
    where
        L: Layer<routing::Route> + Clone + Send + Sync + 'static,
        L::Service: Service<Request> + Clone + Send + Sync + 'static,
        <L::Service as Service<Request>>::Response: IntoResponse + 'static,
        <L::Service as Service<Request>>::Error: Into<Infallible> + 'static,
        <L::Service as Service<Request>>::Future: Send + 'static,
    {
        Self { router: self.router.layer(layer), ..self }
    }

    /// Gives handlers a value besides the state.
    #[must_use]
    pub fn extension<T: Clone + Send + Sync + 'static>(self, value: T) -> Self {
        self.layer(Extension(value))
    }

    /// Gives the handlers their state.
    #[must_use]
    pub fn with_state<S2: Clone + Send + Sync + 'static>(self, state: S) -> Routes<S2> {
        let Self { router, list, fragments } = self;
        Routes { router: router.with_state(state), list, fragments }
    }

    /// Adds the description of these routes to what `GET /api/openapi.json` tells: see [`Fragment`].
    #[must_use]
    pub fn describe(mut self, fragment: Fragment) -> Self {
        self.fragments.push(fragment);
        self
    }

    /// The descriptions that were added.
    #[must_use]
    pub fn fragments(&self) -> &[Fragment] {
        &self.fragments
    }

    /// What there is, in the order in which it was added.
    #[must_use]
    pub fn list(&self) -> &[Route] {
        &self.list
    }

    /// The router.
    pub fn into_router(self) -> Router<S> {
        self.router
    }
}
