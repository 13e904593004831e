# COGO worker mcp-gateway, as a scheduled task.
#   start it, now and always:  powershell -ExecutionPolicy Bypass -File <this file> -Register
#   end it for good:           powershell -ExecutionPolicy Bypass -File <this file> -Unregister
param([switch]$Register, [switch]$Unregister)
$ErrorActionPreference = 'Stop'
$name = 'cogo-worker-mcp-gateway'
$key = 'C:\Users\ada\AppData\Local\cogo\worker-mcp-gateway.key'
if ($Unregister) {
    Stop-ScheduledTask -TaskName $name
    Unregister-ScheduledTask -TaskName $name -Confirm:$false
    exit 0
}
if ($Register) {
    $run = '-NoProfile -ExecutionPolicy Bypass -WindowStyle Hidden -File "{0}"' -f $PSCommandPath
    $task = @{
        TaskName  = $name
        Action    = New-ScheduledTaskAction -Execute 'powershell.exe' -Argument $run
        Trigger   = New-ScheduledTaskTrigger -AtLogOn -User "$env:USERDOMAIN\$env:USERNAME"
        Settings  = New-ScheduledTaskSettingsSet -AllowStartIfOnBatteries -DontStopIfGoingOnBatteries `
            -StartWhenAvailable -ExecutionTimeLimit ([TimeSpan]::Zero) -MultipleInstances IgnoreNew `
            -RestartCount 999 -RestartInterval (New-TimeSpan -Minutes 1)
        Principal = New-ScheduledTaskPrincipal -UserId "$env:USERDOMAIN\$env:USERNAME" -LogonType Interactive
    }
    Register-ScheduledTask @task -Force | Out-Null
    Start-ScheduledTask -TaskName $name
    exit 0
}
$env:COGO_KEY = (Get-Content -Raw -LiteralPath $key).Trim()
$ErrorActionPreference = 'Continue'
while ($true) {
    & 'C:\Program Files\cogo\cogo.exe' 'worker' 'mcp-gateway' '--url' 'https://hub.example' '--worker-id=laptop-1'
    # Wrong usage or a bad configuration file: trying again does not mend it.
    if ($LASTEXITCODE -eq 2) { exit 2 }
    Start-Sleep -Seconds 5
}
