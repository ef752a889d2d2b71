"""The style sheet of the reports."""

from typing import Final

STYLE: Final = """
:root{--bg:#fbfbf9;--fg:#1c1f23;--quiet:#5d646d;--rule:#dfe1dc;--card:#fff;--ok:#1f7a4d;--bad:#b3261e;--odd:#8a6d00;
--v0:#1c1f23;--v1:#2563a8;--v2:#c2691b;--v3:#7a4fa3;--v4:#3d8b7d;--pend:#e0b43b;--new:#9db8d6;--part:#4a86c5;--fill:#2f8f63;
--dfd:#b9a3d6;--closed:#b8bcc2;--cut:#d9a5a0}
@media (prefers-color-scheme:dark){:root{--bg:#15181c;--fg:#e6e8ea;--quiet:#9aa2ab;--rule:#2e343b;--card:#1c2026;--ok:#4cc38a;
--bad:#ff8a80;--odd:#e6c34d;--v0:#f1f3f5;--v1:#6aa9ec;--v2:#f0a35e;--v3:#b794e0;--v4:#6cc5b4;--new:#46617f;--part:#5d9ce0;
--fill:#43b581;--dfd:#7d68a3;--closed:#5a6068;--cut:#7c403b}}
*{box-sizing:border-box}body{margin:0;background:var(--bg);color:var(--fg);font:15px/1.5 system-ui,-apple-system,"Segoe UI",
Roboto,"Helvetica Neue",Arial,sans-serif}main{max-width:1080px;margin:0 auto;padding:28px 22px}
header{display:flex;gap:22px;align-items:center;border-bottom:1px solid var(--rule);padding-bottom:20px}
header h1{font-size:24px;margin:0}header p{margin:2px 0}.verdict{font-size:22px;font-weight:700;text-transform:uppercase;
letter-spacing:.06em;padding:14px 20px;border-radius:8px;color:#fff;background:var(--odd)}
.holds .verdict{background:var(--ok)}.breach .verdict{background:var(--bad)}
@media (prefers-color-scheme:dark){.verdict{color:#101214}}
.quiet,small{color:var(--quiet);font-size:13px}small{font-weight:400;margin-left:10px}
.tag{border:1px solid var(--odd);color:var(--odd);border-radius:10px;padding:0 8px;font-size:12px;margin-left:6px;white-space:nowrap}
.tag.fault{border-color:var(--bad);color:var(--bad)}
h2{font-size:18px;margin:34px 0 10px}h3{font-size:16px;margin:18px 0 6px}h4{font-size:13px;margin:12px 0 3px;color:var(--quiet);
text-transform:uppercase;letter-spacing:.04em}section{margin-bottom:12px}
table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:5px 10px;border-bottom:1px solid var(--rule);
vertical-align:top;font-variant-numeric:tabular-nums}.arms td,.arms thead th{text-align:right}.arms tbody th{font-weight:400}
.arms thead small{display:block;margin:0}.plain{font-size:13px}code{font:12.5px/1.45 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;
overflow-wrap:anywhere}
article.breach{background:var(--card);border:1px solid var(--rule);border-left:5px solid var(--bad);border-radius:6px;
padding:6px 20px 14px;margin:12px 0}.why{font:600 15px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;overflow-wrap:anywhere}
.two{display:grid;grid-template-columns:1fr 1fr;gap:24px}@media (max-width:760px){.two{grid-template-columns:1fr}header{display:block}}
ol{padding-left:20px;margin:4px 0}ol li{margin:5px 0}.done{display:block;color:var(--quiet);font-size:13px}
details{margin:8px 0}summary{cursor:pointer;color:var(--quiet)}
figure{margin:6px 0 10px}figcaption{font-size:13px;color:var(--quiet)}svg{width:100%;height:auto;display:block}
.grid{stroke:var(--rule);stroke-width:1}.zero{stroke:var(--quiet);stroke-width:.7;stroke-dasharray:3 3}
.tick,.axis{font-size:11px;fill:var(--quiet)}.line{fill:none;stroke-width:1.7}.line.v0{stroke:var(--v0);stroke-width:3.6;opacity:.35}
.line.v1{stroke:var(--v1)}.line.v2{stroke:var(--v2);stroke-dasharray:5 3}.line.v3{stroke:var(--v3)}.line.v4{stroke:var(--v4)}
.b-disconnect{fill:var(--cut);opacity:.55}.b-restart{fill:var(--odd)}.b-breach line{stroke:var(--bad);stroke-width:2}
.b-breach path{fill:var(--bad)}.s-pending{fill:var(--pend)}.s-new{fill:var(--new)}.s-partial{fill:var(--part)}
.s-filled{fill:var(--fill)}.s-dfd{fill:var(--dfd)}.s-closed{fill:var(--closed)}
.legend{font-size:13px;color:var(--quiet)}.key{margin:0 8px;white-space:nowrap}.key i{display:inline-block;width:14px;height:8px;
margin-right:5px;border-radius:2px;vertical-align:middle}.key.v0 i{background:var(--v0);opacity:.4}.key.v1 i{background:var(--v1)}
.key.v2 i{background:var(--v2)}.key.v3 i{background:var(--v3)}.key.v4 i{background:var(--v4)}.b-breach i{background:var(--bad)}
.band.b-disconnect,.band.b-restart,.band.b-breach{opacity:1}.band.b-disconnect i{background:var(--cut)}.band.b-restart i{background:var(--odd)}
.state.s-pending i{background:var(--pend)}.state.s-new i{background:var(--new)}.state.s-partial i{background:var(--part)}
.state.s-filled i{background:var(--fill)}.state.s-dfd i{background:var(--dfd)}.state.s-closed i{background:var(--closed)}
.night{border:1px dashed var(--rule);border-radius:6px;padding:8px 14px;margin:8px 0 18px;font-size:14px;background:var(--card)}
.night ul{margin:4px 0;columns:2;font-size:12px}.active{list-style:none;padding:0;columns:2;font-size:13px}
.active li{display:flex;justify-content:space-between;border-bottom:1px solid var(--rule);padding:2px 4px;break-inside:avoid}
.active .off code{color:var(--odd)}footer{max-width:1080px;margin:0 auto;padding:10px 22px 40px;color:var(--quiet);font-size:12px;
overflow-wrap:anywhere}
@media print{body{background:#fff;color:#000}details{display:block}article,figure,.night,tr{break-inside:avoid}main{max-width:none}}
"""
