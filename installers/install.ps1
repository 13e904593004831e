# Installs cogo into a folder of yours. Needs no administrator, and checks what it got before it unpacks it.
#
#   install.ps1 [-Worker] [-To DIR] [-Version VERSION] [-From URL] [-AddToPath]
[CmdletBinding()]
param(
    # The small program, for a machine that only lends its tools.
    [switch] $Worker,
    # Where cogo.exe goes.
    [string] $To = $(if ($env:COGO_INSTALL_DIR) { $env:COGO_INSTALL_DIR } else { Join-Path $env:LOCALAPPDATA 'cogo\bin' }),
    # Another version than that of this installer.
    [string] $Version = '@VERSION@',
    # From elsewhere: URL/vVERSION/ holds the archives.
    [string] $From = $(if ($env:COGO_BASE_URL) { $env:COGO_BASE_URL } else { '@BASE_URL@' }),
    # Adds the folder to the user's PATH.
    [switch] $AddToPath
)

$ErrorActionPreference = 'Stop'
# Windows PowerShell draws a bar for each few bytes, which takes longer than the download.
$ProgressPreference = 'SilentlyContinue'

function Get-Target {
    $machine = if ($env:PROCESSOR_ARCHITEW6432) { $env:PROCESSOR_ARCHITEW6432 } else { $env:PROCESSOR_ARCHITECTURE }
    switch ($machine) {
        'AMD64' { return 'x86_64-pc-windows-msvc' }
        # Windows 11 runs it there as well.
        'ARM64' { return 'x86_64-pc-windows-msvc' }
        default { throw "cogo: there is no binary for Windows on $machine, only for x86_64; build from source" }
    }
}

function Get-File([string] $Url, [string] $File, [string] $Otherwise) {
    try {
        Invoke-WebRequest -UseBasicParsing -Uri $Url -OutFile $File
    } catch {
        throw "cogo: ${Url}: $Otherwise ($($_.Exception.Message))"
    }
}

function Install-Cogo {
    # PATH is looked through from anywhere.
    $script:To = $ExecutionContext.SessionState.Path.GetUnresolvedProviderPathFromPSPath($To)
    # As it lies in the repository, it belongs to no release.
    if ($Version.StartsWith('@')) { throw 'cogo: -Version: is needed, as this installer is of no release' }
    if ($From.StartsWith('@')) { throw 'cogo: -From: is needed, as this installer is of no release' }
    if ($From -notmatch '^https?://') { throw "cogo: -From: $From is no URL" }
    $number = $Version -replace '^v', ''
    if ($number -notmatch '^[0-9A-Za-z.+-]+$') { throw "cogo: -Version: $Version is none" }
    [Net.ServicePointManager]::SecurityProtocol = [Net.ServicePointManager]::SecurityProtocol -bor [Net.SecurityProtocolType]::Tls12

    $program = if ($Worker) { 'cogo-worker' } else { 'cogo' }
    $name = "$program-$(Get-Target)"
    $url = "$($From.TrimEnd('/'))/v$number/$name.zip"
    $work = Join-Path ([IO.Path]::GetTempPath()) "cogo-$([Guid]::NewGuid())"
    New-Item -ItemType Directory -Path $work | Out-Null
    try {
        $archive = Join-Path $work "$name.zip"
        $sum = Join-Path $work 'sum'
        Write-Host "cogo: getting $url"
        Get-File $url $archive "could not be got; is there a version $number?"
        Get-File "$url.sha256" $sum 'could not be got, and what is not checked is not installed'
        $wanted = ((Get-Content -Raw $sum).Trim() -split '\s+')[0]
        if ($wanted -notmatch '^[0-9a-fA-F]{64}$') { throw "cogo: $url.sha256: holds no sum" }
        $got = (Get-FileHash -Algorithm SHA256 -Path $archive).Hash
        if ($got -ne $wanted) {
            throw "cogo: ${url}: is not what it should be (SHA-256 $got, and should be $wanted); nothing was installed"
        }
        Expand-Archive -Path $archive -DestinationPath $work
        $unpacked = Join-Path $work "$name\cogo.exe"
        if (-not (Test-Path $unpacked)) { throw "cogo: $name.zip: holds no $name\cogo.exe" }
        $told = & $unpacked -V
        if ($LASTEXITCODE -ne 0) { throw 'cogo: the program does not run here, and was not installed' }
        New-Item -ItemType Directory -Force -Path $To | Out-Null
        $place = Join-Path $To 'cogo.exe'
        # A program that runs cannot be overwritten, but it can be moved away.
        if (Test-Path $place) { Move-Item -Force $place "$place.old" }
        try { Move-Item -Force $unpacked $place } catch {
            if (Test-Path "$place.old") { Move-Item -Force "$place.old" $place }
            throw
        }
        Remove-Item -Force -ErrorAction SilentlyContinue "$place.old"
        Write-Host "cogo: $told is in $place"
    } finally {
        Remove-Item -Recurse -Force -ErrorAction SilentlyContinue $work
    }
    $path = [Environment]::GetEnvironmentVariable('Path', 'User')
    if (($path -split ';') -notcontains $To) {
        if ($AddToPath) {
            # As it is written there, with names such as %USERPROFILE% in it.
            $key = [Microsoft.Win32.Registry]::CurrentUser.OpenSubKey('Environment', $true)
            $raw = $key.GetValue('Path', '', [Microsoft.Win32.RegistryValueOptions]::DoNotExpandEnvironmentNames)
            $key.SetValue('Path', "$To;$raw", [Microsoft.Win32.RegistryValueKind]::ExpandString)
            $key.Close()
            Write-Host "cogo: $To is in PATH now, for shells that are opened from here on"
        } else {
            Write-Host "cogo: $To is not in PATH; add it, or run this again with -AddToPath"
        }
    }
}

Install-Cogo
