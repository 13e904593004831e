//! A report in JUnit's XML, which CI systems read.

use std::io;

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use super::{Outcome, report};

pub(super) fn text(report: &report::Report) -> io::Result<String> {
    let mut all = Report::new(report.name.as_str());
    all.set_timestamp(report.started_at.fixed_offset());
    all.set_time(report.took);
    for stage in &report.stages {
        let mut suite = TestSuite::new(stage.name.as_str());
        suite.set_timestamp(stage.started_at.fixed_offset());
        suite.set_time(stage.took);
        for step in &stage.steps {
            suite.add_test_case(case(&stage.name, &step.name, &step.outcome, Some(step.took)));
        }
        // What no step stands for: a stage that was passed over, or that went through none.
        if stage.failed_step.is_none() && !matches!(stage.outcome, Outcome::Passed { .. }) {
            suite.add_test_case(case(&stage.name, "stage", &stage.outcome, None));
        }
        all.add_test_suite(suite);
    }
    all.to_string().map_err(io::Error::other)
}

fn case(stage: &str, name: &str, outcome: &Outcome, took: Option<std::time::Duration>) -> TestCase {
    let status = match outcome {
        Outcome::Passed { .. } => TestCaseStatus::success(),
        Outcome::Failed { reason, remedy } => {
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
            status.set_message(reason.as_str());
            if let Some(remedy) = remedy {
                status.set_description(remedy.as_str());
            }
            status
        }
        Outcome::Skipped { reason } => {
            let mut status = TestCaseStatus::skipped();
            status.set_message(reason.as_str());
            status
        }
    };
    let mut case = TestCase::new(name, status);
    case.set_classname(stage);
    if let Some(took) = took {
        case.set_time(took);
    }
    if let Outcome::Passed { detail } = outcome {
        case.set_system_out(detail.as_str());
    }
    case
}
