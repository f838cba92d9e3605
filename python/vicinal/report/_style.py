"""The style of the page: light and dark, narrow and wide, and on paper."""

from __future__ import annotations

__all__ = ["STYLE"]

STYLE = """
:root{color-scheme:light dark;--ground:#fff;--ink:#1b1f24;--soft:#57606a;--line:#d5dae0;
--card:#f6f8fa;--good:#116329;--look:#7d4e00;--wrong:#b3131d;
--s0:#0b62c4;--s1:#c2410c;--s2:#15803d;--s3:#9333ea;--s4:#57606a;
--f3:#2b7a3d;--f2:#3f7fc4;--f1:#d98200;--f0:#d1121f;--other:#b9c0c8}
@media(prefers-color-scheme:dark){:root{--ground:#11151a;--ink:#e6e9ed;--soft:#a5afba;--line:#343c46;
--card:#1a2027;--good:#5fd07a;--look:#f0b642;--wrong:#ff8080;
--s0:#6cb0ff;--s1:#ff9a5c;--s2:#62d486;--s3:#cf9bff;--s4:#a5afba;
--f3:#4fb867;--f2:#6ca9ea;--f1:#f0a73a;--f0:#ff5a5f;--other:#4d5762}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:70rem;padding:1rem;background:var(--ground);color:var(--ink);
font:1rem/1.5 system-ui,sans-serif}
h1{font-size:1.6rem;line-height:1.2;margin:.5rem 0;overflow-wrap:anywhere}
h2{font-size:1.25rem;margin:2.5rem 0 .5rem;border-bottom:1px solid var(--line)}
h3{font-size:1rem;margin:0 0 .4rem}
p{margin:.4rem 0 .8rem;max-width:46rem}
a{color:var(--s0)}
nav ul{display:flex;flex-wrap:wrap;gap:.2rem 1rem;padding:0;list-style:none;margin:.5rem 0 1rem}
.verdict{border:2px solid;border-radius:.5rem;padding:.6rem 1rem;font-size:1.1rem;font-weight:600}
.verdict.good{color:var(--good)}.verdict.look{color:var(--look)}.verdict.wrong{color:var(--wrong)}
ul.findings{list-style:none;padding:0;max-width:56rem}
ul.findings li{border-left:.35rem solid;padding:.2rem .8rem;margin:.5rem 0;
display:grid;grid-template-columns:8em 1fr}
@media(max-width:40rem){ul.findings li{display:block}ul.findings span{display:block}}
ul.findings span{color:var(--ink)}
ul.findings .advice{color:var(--soft);grid-column:2}
li.good{border-color:var(--good);color:var(--good)}li.look{border-color:var(--look);color:var(--look)}
li.wrong{border-color:var(--wrong);color:var(--wrong)}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(9rem,1fr));gap:.6rem;margin:1rem 0;
padding:0}
.tiles div{background:var(--card);border-radius:.5rem;padding:.6rem .8rem}
.tiles dt{color:var(--soft);font-size:.85rem}.tiles dd{margin:0;font-size:1.3rem;font-weight:600}
.figures{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,24rem),1fr));gap:1rem;
margin:1rem 0}
figure.map{grid-column:1/-1}figure.map svg.map{max-width:54rem}
figure{margin:0;background:var(--card);border-radius:.5rem;padding:.8rem;min-width:0}
figcaption{color:var(--soft);font-size:.9rem}
svg.plot,svg.map{display:block;width:100%;height:auto}
svg text{fill:var(--soft);font:13px system-ui,sans-serif}
.grid{stroke:var(--line);stroke-width:.6;fill:none}.axis{stroke:var(--soft);fill:none}
.target{stroke:var(--look);stroke-dasharray:5 4;fill:none}
.line{fill:none;stroke-width:2}.band{opacity:.18;stroke:none}
.s0{stroke:var(--s0);fill:var(--s0)}.s1{stroke:var(--s1);fill:var(--s1)}
.s2{stroke:var(--s2);fill:var(--s2)}.s3{stroke:var(--s3);fill:var(--s3)}
.s4{stroke:var(--s4);fill:var(--s4)}
.line.s0,.line.s1,.line.s2,.line.s3,.line.s4{fill:none}
.bar{stroke:none}.band{stroke:none!important}
.other{stroke:var(--other);stroke-width:2.4;stroke-linecap:round}
.found{stroke-width:4.2;stroke-linecap:round}.query{stroke:var(--ink);stroke-width:1.2;fill:none}
.found.f0{stroke:var(--f0);stroke-width:6}.found.f1{stroke:var(--f1);stroke-width:5}
.found.f2{stroke:var(--f2)}.found.f3{stroke:var(--f3)}
ul.legend{display:flex;flex-wrap:wrap;gap:.2rem 1rem;list-style:none;padding:0;margin:.3rem 0;
font-size:.9rem}
ul.legend svg{vertical-align:-1px;margin-right:.3rem}
ul.legend li[class]:not(.q)::before{content:"";display:inline-block;width:.7rem;height:.7rem;
border-radius:50%;margin-right:.35rem;background:var(--other)}
ul.legend .f0::before{background:var(--f0)!important}
ul.legend .f1::before{background:var(--f1)!important}
ul.legend .f2::before{background:var(--f2)!important}
ul.legend .f3::before{background:var(--f3)!important}
.scroll{overflow-x:auto}
table{border-collapse:collapse;font-size:.92rem;margin:.4rem 0}
caption{text-align:left;color:var(--soft)}
th,td{text-align:right;padding:.2rem .7rem .2rem 0;border-bottom:1px solid var(--line)}
th:first-child,td:first-child{text-align:left}thead th{vertical-align:bottom}
th[scope=row]{font-weight:500}td,tbody th{white-space:nowrap}
details{margin:.5rem 0}summary{cursor:pointer;color:var(--soft)}
footer{margin:3rem 0 1rem;color:var(--soft);font-size:.9rem}
.skip{position:absolute;left:-99rem}.skip:focus{left:1rem;background:var(--ground)}
@media print{body{max-width:none}figure{break-inside:avoid}nav{display:none}}
"""
