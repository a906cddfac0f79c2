"""What pages of figures do in a browser: values under the pointer in charts of lines, and tables that can be sorted."""

STYLE = """
.plot{position:relative} .at{position:absolute;width:1px;background:var(--soft);pointer-events:none}
.values{position:absolute;z-index:2;pointer-events:none;padding:.35rem .6rem;border:1px solid var(--line);
border-radius:6px;background:var(--back);font-size:.8rem;line-height:1.35;white-space:nowrap;max-width:100%;
font-variant-numeric:tabular-nums;box-shadow:0 2px 8px #0003}
.values div{display:flex;gap:.45rem;align-items:baseline} .values span{overflow:hidden;text-overflow:ellipsis}
.values i{flex:none;width:.7rem;height:.2rem;align-self:center}
.values b{margin-left:auto;padding-left:.5rem}
th.sorts{cursor:pointer;user-select:none} th.sorts::after{content:"\\2195";color:var(--soft);padding-left:.25rem}
th.sorts[aria-sort=ascending]::after{content:"\\2191"} th.sorts[aria-sort=descending]::after{content:"\\2193"}
th.sorts:focus-visible{outline:2px solid var(--link)}
"""

SCRIPT = """
"use strict";
function made(tag,name,parent){const found=document.createElement(tag);found.className=name;
parent.append(found);return found;}
function written(value,share){if(share)return(100*value).toFixed(2)+" %";
return String(Number(value.toPrecision(5)));}
for(const figure of document.querySelectorAll("figure[data-lines]")){
const plot=figure.querySelector(".plot"),svg=plot.querySelector("svg"),about=JSON.parse(figure.dataset.lines);
const line=made("div","at",plot),box=made("div","values",plot);line.hidden=box.hidden=true;
function hide(){line.hidden=box.hidden=true;}
function show(event){
const area=svg.getBoundingClientRect(),left=area.left-plot.getBoundingClientRect().left+plot.scrollLeft;
const x=(event.clientX-area.left)/area.width,y=(event.clientY-area.top)/area.height;
const panel=about.panels.find(each=>x>=each.box[0]-.02&&x<=each.box[2]+.02&&y>=each.box[1]&&y<=each.box[3]);
if(!panel||!panel.places.length)return hide();
const [low,high]=panel.range,at=low+(high-low)*(x-panel.box[0])/(panel.box[2]-panel.box[0]);
const place=panel.places.reduce((a,b)=>Math.abs(b-at)<Math.abs(a-at)?b:a);
box.replaceChildren();made("div","",box).textContent=about.axis+" "+place;
for(const each of panel.series){const found=each.places.indexOf(place);if(found<0)continue;
const row=made("div","",box);made("i","",row).style.background=each.colour;
made("span","",row).textContent=each.label;made("b","",row).textContent=written(each.values[found],panel.share);}
line.hidden=box.hidden=false;
const mark=left+area.width*(panel.box[0]+(panel.box[2]-panel.box[0])*(place-low)/((high-low)||1));
line.style.left=mark+"px";line.style.top=area.height*panel.box[1]+"px";
line.style.height=area.height*(panel.box[3]-panel.box[1])+"px";
const start=plot.scrollLeft,end=start+plot.clientWidth;
let side=mark+10;if(side+box.offsetWidth>end)side=mark-10-box.offsetWidth;
box.style.left=Math.max(start,Math.min(side,end-box.offsetWidth))+"px";box.style.top=area.height*panel.box[1]+"px";}
plot.addEventListener("pointermove",show);plot.addEventListener("pointerdown",show);
plot.addEventListener("pointerleave",hide);}
function worth(cell){const text=cell?cell.textContent.trim():"";
const found=/^[+\\u2212-]?[\\d,]*\\.?\\d+(e[+-]?\\d+)?/i.exec(text);
return[found?Number(found[0].replaceAll(",","").replace("\\u2212","-")):NaN,text];}
for(const table of document.querySelectorAll("table")){
const body=table.tBodies[0],heads=table.tHead?[...table.tHead.rows[0].cells]:[];
if(!body||body.rows.length<2)continue;
heads.forEach((head,place)=>{head.classList.add("sorts");head.tabIndex=0;
function sort(){const down=head.getAttribute("aria-sort")==="ascending",sign=down?-1:1;
const rows=[...body.rows].map(row=>[worth(row.cells[place]),row]);
const words=new Intl.Collator(undefined,{numeric:true}).compare;
const numeric=rows.every(([[value,text]])=>!Number.isNaN(value)||!text||text==="-");
rows.sort(([[a,one]],[[b,two]])=>numeric?Number.isNaN(a)-Number.isNaN(b)||sign*(a-b):sign*words(one,two));
heads.forEach(each=>each.removeAttribute("aria-sort"));
head.setAttribute("aria-sort",down?"descending":"ascending");body.append(...rows.map(([,row])=>row));}
head.addEventListener("click",sort);
head.addEventListener("keydown",event=>{if(event.key==="Enter"||event.key===" "){event.preventDefault();sort();}});});}
"""
