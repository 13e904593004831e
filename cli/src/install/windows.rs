//! A PowerShell script that registers itself as a scheduled task, and is run by it.
//!
//! No service of the Service Control Manager: `cogo` is a plain program, which does not answer it, and would
//! be ended by it after 30 seconds. A task needs no wrapper from elsewhere. What it cannot do is to tell the
//! worker to stop: it ends it, and what it had in hand goes to others when its leases run out.

use crate::install::service::{Owner, Service};

const BODY: &str = r#"# §DESCRIPTION§, as a scheduled task.
#   start it, now and always:  powershell -ExecutionPolicy Bypass -File <this file> -Register
#   end it for good:           powershell -ExecutionPolicy Bypass -File <this file> -Unregister
param([switch]$Register, [switch]$Unregister)
$ErrorActionPreference = 'Stop'
$name = §NAME§
$key = §KEY§
if ($Unregister) {
    Stop-ScheduledTask -TaskName $name
    Unregister-ScheduledTask -TaskName $name -Confirm:$false
    exit 0
}
if ($Register) {
§PROTECT§    $run = '-NoProfile -ExecutionPolicy Bypass -WindowStyle Hidden -File "{0}"' -f $PSCommandPath
    $task = @{
        TaskName  = $name
        Action    = New-ScheduledTaskAction -Execute 'powershell.exe' -Argument $run
        Trigger   = §TRIGGER§
        Settings  = New-ScheduledTaskSettingsSet -AllowStartIfOnBatteries -DontStopIfGoingOnBatteries `
            -StartWhenAvailable -ExecutionTimeLimit ([TimeSpan]::Zero) -MultipleInstances IgnoreNew `
            -RestartCount 999 -RestartInterval (New-TimeSpan -Minutes 1)
        Principal = §PRINCIPAL§
    }
    Register-ScheduledTask @task -Force | Out-Null
    Start-ScheduledTask -TaskName $name
    exit 0
}
$env:COGO_KEY = (Get-Content -Raw -LiteralPath $key).Trim()
§ENVIRONMENT§$ErrorActionPreference = 'Continue'
while ($true) {
    & §COMMAND§
    # Wrong usage or a bad configuration file: trying again does not mend it.
    if ($LASTEXITCODE -eq 2) { exit 2 }
    Start-Sleep -Seconds 5
}
"#;

/// What is below ProgramData others may read; by number, since the names differ by language.
const PROTECT: &str =
    "    # The key: for the system, administrators and LOCAL SERVICE, which the task runs as.
    icacls $key /inheritance:r /grant:r '*S-1-5-18:F' '*S-1-5-32-544:F' '*S-1-5-19:R' | Out-Null
    if ($LASTEXITCODE -ne 0) { throw 'the rights of the key could not be set' }
";

pub(super) fn text(service: &Service) -> String {
    let system = service.owner == Owner::System;
    let (trigger, principal) = if system {
        (
            "New-ScheduledTaskTrigger -AtStartup",
            "New-ScheduledTaskPrincipal -UserId 'S-1-5-19' -LogonType ServiceAccount",
        )
    } else {
        (
            "New-ScheduledTaskTrigger -AtLogOn -User \"$env:USERDOMAIN\\$env:USERNAME\"",
            "New-ScheduledTaskPrincipal -UserId \"$env:USERDOMAIN\\$env:USERNAME\" -LogonType Interactive",
        )
    };
    let words: Vec<_> = std::iter::once(&service.program)
        .chain(&service.arguments())
        .map(|word| quoted(word))
        .collect();
    let environment = match &service.config_dir {
        Some(dir) => format!("$env:COGO_CONFIG_DIR = {}\n", quoted(dir)),
        None => String::new(),
    };
    let value = |name: &str| match name {
        "DESCRIPTION" => format!("COGO worker {}", service.role),
        "TRIGGER" => trigger.to_owned(),
        "PRINCIPAL" => principal.to_owned(),
        "PROTECT" => if system { PROTECT } else { "" }.to_owned(),
        "NAME" => quoted(&service.name()),
        "KEY" => quoted(&service.key_file()),
        "ENVIRONMENT" => environment.clone(),
        _ => words.join(" "),
    };
    // In one pass, so that nothing in a value is taken for a name.
    let parts = BODY.split('§').enumerate();
    let text: String =
        parts.map(|(at, part)| if at % 2 == 0 { part.to_owned() } else { value(part) }).collect();
    // Windows' own PowerShell takes a file without the mark for one of the old code page.
    if text.is_ascii() { text } else { format!("\u{feff}{text}") }
}

pub(super) fn next(service: &Service) -> Vec<String> {
    let file = service.file();
    vec![
        format!("powershell -ExecutionPolicy Bypass -File \"{file}\" -Register"),
        format!("powershell -Command \"Get-ScheduledTaskInfo -TaskName {}\"", service.name()),
    ]
}

/// A literal string; PowerShell takes the typographic quotes for the plain one.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("'");
    for c in text.chars() {
        if matches!(c, '\'' | '\u{2018}'..='\u{201b}') {
            quoted.push(c);
        }
        quoted.push(c);
    }
    quoted.push('\'');
    quoted
}
