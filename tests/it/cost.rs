//! What a message costs, in numbers that no machine changes: statements, rows, pages, bytes of log. Each has a budget
//! in `cost/budgets.json`; `docs/performance-guard.md` says what is held and how to change it.

mod budget;
mod calls;
mod clients;
mod depth;
mod functions;
mod held;
mod instructions;
mod plans;
mod regressions;
mod report;
mod server;
