# What no unit of this module needs that talks to the network, as whichever user. Devices, address families and memory that is both
# written and run are each unit's own matter.
{
  # --- files ---
  UMask = "0077";
  PrivateTmp = true;
  ProtectHome = true;
  ProtectProc = "invisible";
  ProtectSystem = "strict";

  # --- rights ---
  AmbientCapabilities = "";
  CapabilityBoundingSet = "";
  NoNewPrivileges = true;
  RestrictSUIDSGID = true;

  # --- devices ---
  DevicePolicy = "closed";

  # --- kernel ---
  KeyringMode = "private";
  LimitCORE = 0;
  LockPersonality = true;
  PrivateIPC = true;
  ProtectClock = true;
  ProtectControlGroups = true;
  ProtectHostname = true;
  ProtectKernelLogs = true;
  ProtectKernelModules = true;
  ProtectKernelTunables = true;
  RemoveIPC = true;
  RestrictNamespaces = true;
  RestrictRealtime = true;
  SystemCallArchitectures = "native";
  SystemCallErrorNumber = "EPERM";
  SystemCallFilter = [
    "@system-service"
    "~@privileged"
  ];
}
